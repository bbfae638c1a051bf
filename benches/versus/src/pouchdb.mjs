// The work of the ledger done by PouchDB 9 on LevelDB, which it writes without a sync.
//
//     node pouchdb.mjs DIRECTORY_OF_NODE_MODULES DIRECTORY_FOR_DATABASES < work.json
//
// Prints one JSON array: for each piece of work how many were done, in how many seconds, the milliseconds of each step, the
// bytes on disk, and the memory of the process.

import { existsSync, readFileSync, readdirSync, statSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";

const [modules, dir] = process.argv.slice(2);
const PouchDB = createRequire(join(modules, "/"))("pouchdb");
const work = JSON.parse(readFileSync(0, "utf8"));
const BATCH = 1000;

// As the kernel of Linux tells it; 0 elsewhere.
function memory(name) {
  if (!existsSync("/proc/self/status")) return 0;
  const line = readFileSync("/proc/self/status", "utf8").split("\n").find((line) => line.startsWith(name));
  return Number(line.split(/\s+/)[1]) * 1024;
}

function watch() {
  // Forgets earlier peaks of memory.
  if (existsSync("/proc/self/clear_refs")) writeFileSync("/proc/self/clear_refs", "5");
  const [before, started] = [memory("VmRSS:"), performance.now()];
  return (name, count, steps, database) => ({
    name,
    count,
    seconds: (performance.now() - started) / 1000,
    steps,
    bytes: bytesBelow(join(dir, database)),
    memory: { before, peak: memory("VmHWM:") },
  });
}

function bytesBelow(path) {
  const found = statSync(path);
  if (!found.isDirectory()) return found.size;
  return readdirSync(path).reduce((sum, name) => sum + bytesBelow(join(path, name)), 0);
}

function batches(items) {
  const count = Math.ceil(items.length / BATCH);
  return Array.from({ length: count }, (_, nth) => items.slice(nth * BATCH, (nth + 1) * BATCH));
}

async function timed(steps, step) {
  const started = performance.now();
  await step();
  steps.push(performance.now() - started);
}

// PouchDB tells of a refused document in its answer.
function check(answers) {
  const refused = answers.find((answer) => answer.error);
  if (refused) throw new Error(`PouchDB refused a document: ${JSON.stringify(refused)}`);
}

async function create(database) {
  const [done, steps] = [watch(), []];
  for (const batch of batches(work.records)) {
    const documents = batch.map(([key, value]) => ({ _id: key, ...value }));
    await timed(steps, async () => check(await database.bulkDocs(documents)));
  }
  return done("create", work.records.length, steps, "here");
}

// No record twice in a batch.
async function patch(database) {
  const [done, steps] = [watch(), []];
  for (const batch of batches(work.patches)) {
    await timed(steps, async () => {
      const keys = batch.map(([key]) => key);
      const { rows } = await database.allDocs({ keys, include_docs: true });
      check(await database.bulkDocs(rows.map((row, nth) => ({ ...row.doc, ...batch[nth][1] }))));
    });
  }
  return done("patch", work.patches.length, steps, "here");
}

async function alone(database) {
  const [done, steps] = [watch(), []];
  for (const [key, patch] of work.alone) {
    await timed(steps, async () => database.put({ ...(await database.get(key)), ...patch }));
  }
  return done("alone", work.alone.length, steps, "here");
}

async function get(database) {
  const [done, steps] = [watch(), []];
  for (const [key] of work.records) await database.get(key);
  return done("get", work.records.length, steps, "here");
}

async function replicate(name, count) {
  const [from, to] = [new PouchDB(join(dir, name)), new PouchDB(join(dir, `${name}-replica`))];
  for (const batch of batches(work.records.slice(0, count))) {
    check(await from.bulkDocs(batch.map(([key, value]) => ({ _id: key, ...value }))));
  }
  const done = watch();
  const { docs_written } = await PouchDB.replicate(from, to, { batch_size: BATCH });
  if (docs_written !== count) throw new Error(`PouchDB replicated ${docs_written} of ${count} documents`);
  return done("replicate", count, [], `${name}-replica`);
}

const here = new PouchDB(join(dir, "here"));
const measured = [];
for (const piece of [create, patch, alone, get]) measured.push(await piece(here));
measured.push(await replicate("from", work.replicated));
console.log(JSON.stringify(measured));
