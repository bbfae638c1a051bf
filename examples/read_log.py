#!/usr/bin/env python3
"""Prints the events of a backup that was made with `syncledger backup FILE --codec none`, one JSON object a line, as
`syncledger log --json` does. It reads the format of docs/format.md and nothing else: plain Python, no package.

    python3 examples/read_log.py FILE

Every hash is computed again: of the head, of each segment and block, of each event (its id) and of the end.
"""

import json
import struct
import sys

# --- blake3, in derive-key mode (the BLAKE3 specification, 2020) -----------------------------------------------------

MASK = 0xFFFFFFFF
IV = (0x6A09E667, 0xBB67AE85, 0x3C6EF372, 0xA54FF53A, 0x510E527F, 0x9B05688C, 0x1F83D9AB, 0x5BE0CD19)
ORDER = (2, 6, 3, 10, 7, 0, 4, 13, 1, 11, 12, 5, 9, 14, 15, 8)
START, END, PARENT, ROOT, CONTEXT, MATERIAL = 1, 2, 4, 8, 32, 64


def mix(v, a, b, c, d, x, y):
    v[a] = (v[a] + v[b] + x) & MASK
    t = v[d] ^ v[a]
    v[d] = (t >> 16 | t << 16) & MASK
    v[c] = (v[c] + v[d]) & MASK
    t = v[b] ^ v[c]
    v[b] = (t >> 12 | t << 20) & MASK
    v[a] = (v[a] + v[b] + y) & MASK
    t = v[d] ^ v[a]
    v[d] = (t >> 8 | t << 24) & MASK
    v[c] = (v[c] + v[d]) & MASK
    t = v[b] ^ v[c]
    v[b] = (t >> 7 | t << 25) & MASK


def compress(chaining, words, counter, length, flags):
    v = [*chaining, *IV[:4], counter & MASK, counter >> 32, length, flags]
    for turn in range(7):
        mix(v, 0, 4, 8, 12, words[0], words[1])
        mix(v, 1, 5, 9, 13, words[2], words[3])
        mix(v, 2, 6, 10, 14, words[4], words[5])
        mix(v, 3, 7, 11, 15, words[6], words[7])
        mix(v, 0, 5, 10, 15, words[8], words[9])
        mix(v, 1, 6, 11, 12, words[10], words[11])
        mix(v, 2, 7, 8, 13, words[12], words[13])
        mix(v, 3, 4, 9, 14, words[14], words[15])
        words = [words[at] for at in ORDER]
    return [v[i] ^ v[i + 8] for i in range(8)]


def chunk(key, data, counter, flags, is_root):
    blocks = [data[at : at + 64] for at in range(0, len(data), 64)] or [b""]
    chaining = key
    for index, block in enumerate(blocks):
        extra = (START if index == 0 else 0) | (END if index == len(blocks) - 1 else 0)
        extra |= ROOT if is_root and index == len(blocks) - 1 else 0
        words = list(struct.unpack("<16I", block.ljust(64, b"\0")))
        chaining = compress(chaining, words, counter, len(block), flags | extra)
    return chaining


def tree(key, chunks, first, flags, is_root):
    if len(chunks) == 1:
        return chunk(key, chunks[0], first, flags, is_root)
    left = 1
    while left * 2 < len(chunks):
        left *= 2
    words = tree(key, chunks[:left], first, flags, False) + tree(key, chunks[left:], first + left, flags, False)
    return compress(key, words, 0, 64, flags | PARENT | (ROOT if is_root else 0))


def blake3(key, data, flags):
    chunks = [data[at : at + 1024] for at in range(0, len(data), 1024)] or [b""]
    return tree(key, chunks, 0, flags, True)


KEYS = {}


def derive_key(context, data):
    if context not in KEYS:
        KEYS[context] = blake3(list(IV), context.encode(), CONTEXT)
    return struct.pack("<8I", *blake3(KEYS[context], data, MATERIAL))


def fields(context, *parts):
    """The hash of several fields: each is preceded by its length."""
    return derive_key(context, b"".join(struct.pack("<Q", len(part)) + part for part in parts))


# --- reading bytes ---------------------------------------------------------------------------------------------------


class Bad(Exception):
    pass


class Bytes:
    def __init__(self, data):
        self.data, self.at = data, 0

    def take(self, length):
        if self.at + length > len(self.data):
            raise Bad(f"it breaks off at byte {len(self.data)}")
        self.at += length
        return self.data[self.at - length : self.at]

    def left(self):
        return len(self.data) - self.at

    def number(self, size):
        return int.from_bytes(self.take(size), "little")

    def varint(self):
        value = shift = 0
        while True:
            byte = self.take(1)[0]
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value
            shift += 7


def signed(value):
    """Zigzag: 0, -1, 1, -2, 2 …"""
    return (value >> 1) ^ -(value & 1)


def wrap(value):
    """A signed number of 64 bits."""
    return (value + (1 << 63)) % (1 << 64) - (1 << 63)


U64 = (1 << 64) - 1

# --- the columns of a block, in their order --------------------------------------------------------------------------

NUMBERS = """position previous received_form received brought_by record record_collection collection_bytes key_bytes
writer sequence lane nth parents parent known_writer known_sequence at_millis at_counter has_occurred occurred source
source_bytes principal principal_bytes reason reason_bytes run delivery has_idempotency idempotency_bytes batch
batch_index batch_count has_resolves has_reverts reverts ops op path path_bytes value int uint text_bytes bytes_bytes
atomic_bytes blob_bytes by container container_op index delete""".split()
BYTES = """collections keys writers ids sources principals reasons runs idempotency_keys hashes batches paths floats
texts bytes atomics""".split()


class Columns:
    def __init__(self, raw):
        source = Bytes(raw)
        self.numbers = {name: self.column(source) for name in NUMBERS}
        self.bytes = {name: Bytes(source.take(source.varint())) for name in BYTES}
        if source.left():
            raise Bad("bytes are left over after the columns")

    @staticmethod
    def column(source):
        count = source.varint()
        if count == 0:
            return iter(())
        if source.take(1)[0] == 0:
            value = source.varint()
            return (value for _ in range(count))
        return iter([source.varint() for _ in range(count)])

    def number(self, name):
        return next(self.numbers[name])

    def take(self, name, length):
        return self.bytes[name].take(length)

    def text(self, length, name):
        return self.take(name, self.number(length)).decode()


OPS = """put put_atomic remove increment set_add set_remove make_set make_list make_text insert remove_at splice_text
delete restore""".split()


class Block:
    """The events of one block. `ids` holds the ids of the segment's events so far, `places` their positions."""

    def __init__(self, raw, due, ids, places):
        self.columns, self.due, self.ids, self.places = Columns(raw), due, ids, places
        self.known = {name: [] for name in "collection record writer source principal reason run path".split()}
        self.sequences, self.at, self.received, self.batch = {}, 0, 0, None
        self.form = self.columns.number("received_form")

    def entry(self, name, code, new):
        """What a code of a dictionary means: 0 is new, from 1 what came before."""
        known = self.known[name]
        if code == 0:
            known.append(new())
            return known[-1]
        return known[code - 1]

    def option(self, name, length=None):
        code = self.columns.number(name)
        if code == 0:
            return None
        return self.entry(name, code - 1, lambda: self.columns.text(length, name + "s"))

    def run(self, code):
        return self.entry("run", code, lambda: self.columns.take("runs", 16))

    def new_record(self):
        columns = self.columns
        name = lambda: columns.text("collection_bytes", "collections")
        collection = self.entry("collection", columns.number("record_collection"), name)
        return collection, columns.text("key_bytes", "keys")

    def reference(self, column, previous):
        """The event that another names: by its id, as the record's event before, or by how far back it stands."""
        code = self.columns.number(column)
        if code == 0:
            return self.columns.take("ids", 32)
        if code == 1:
            raise Bad("it names an event that only its receiver knows")
        if code == 2:
            return self.ids[self.places[previous]]
        return self.ids[len(self.ids) - (code - 2)]

    def event(self):
        number, take = self.columns.number, self.columns.take
        event = {"position": self.due + number("position")}
        self.due = event["position"] + 1
        back = number("previous")
        previous = event["position"] - back if back else 0
        record = number("record")
        event["collection"], event["key"] = self.entry("record", record, self.new_record)
        event["writer"] = self.entry("writer", number("writer"), lambda: take("writers", 16))
        due = self.sequences.get(event["writer"], 0)
        event["sequence"] = (due + signed(number("sequence"))) & U64
        self.sequences[event["writer"]] = event["sequence"] + 1 & U64
        event["lane"], event["nth"] = number("lane"), number("nth") + 1
        event["parents"] = [self.reference("parent", previous) for _ in range(number("parents"))]
        self.at = wrap(self.at + signed(number("at_millis")))
        event["at"], event["counter"] = self.at, number("at_counter")
        occurred = number("has_occurred")
        event["occurred_at"] = wrap(signed(number("occurred")) + self.at) if occurred else None
        event["source"] = self.entry("source", number("source"), lambda: self.columns.text("source_bytes", "sources"))
        event["principal"] = self.option("principal", "principal_bytes")
        event["reason"] = self.option("reason", "reason_bytes")
        made = number("run")
        event["made_by"] = self.run(made - 1) if made else None
        brought = number("brought_by")
        event["run"] = event["made_by"] if brought == 0 else None if brought == 1 else self.run(brought - 2)
        event["delivery"] = bool(number("delivery"))
        event["idempotency"] = None
        if number("has_idempotency"):
            key = self.columns.text("idempotency_bytes", "idempotency_keys")
            event["idempotency"] = (key, take("hashes", 32))
        event["batch"] = self.batch = self.next_batch()
        event["resolves"] = take("hashes", 32) if number("has_resolves") else None
        event["reverts"] = self.reference("reverts", previous) if number("has_reverts") else None
        event["ops"] = [self.op(previous) for _ in range(number("ops"))]
        self.received = wrap(self.received + signed(number("received")))
        event["received_at"] = wrap(self.received + self.at) if self.form == 1 else self.received
        return event

    def next_batch(self):
        code = self.columns.number("batch")
        if code == 0:
            return None
        if code == 1:
            batch, index, count = self.batch
            return batch, index + 1, count
        return self.columns.take("batches", 16), self.columns.number("batch_index"), self.columns.number("batch_count")

    def op(self, previous):
        number = self.columns.number
        op = {"kind": number("op")}
        name = op["op"] = OPS[op["kind"]]
        if op["kind"] <= 8:
            new = lambda: self.columns.text("path_bytes", "paths")
            op["path"] = self.entry("path", number("path"), new)
        if name in ("insert", "remove_at", "splice_text"):
            if number("container") == 0:
                op["container"] = (None, number("container_op"))
            else:
                made = self.reference("parent", previous)
                op["container"] = (made, number("container_op"))
        if name in ("put", "set_add", "set_remove", "insert"):
            op["value"] = self.value()
        if name == "put_atomic":
            op["value"] = ("atomic", self.columns.text("atomic_bytes", "atomics"))
        if name == "increment":
            op["by"] = signed(number("by"))
        if name in ("insert", "remove_at", "splice_text"):
            op["index"] = number("index")
        if name == "splice_text":
            op["delete"] = number("delete")
            op["insert"] = self.columns.text("text_bytes", "texts")
        return op

    def value(self):
        number, take = self.columns.number, self.columns.take
        form = number("value")
        if form in (0, 8):
            return ("null", "object")[form // 8], None
        if form in (1, 2):
            return "bool", form == 2
        if form == 3:
            return "int", signed(number("int"))
        if form == 4:
            return "uint", number("uint")
        if form == 5:
            return "float", struct.unpack("<d", take("floats", 8))[0]
        if form == 6:
            return "text", self.columns.text("text_bytes", "texts")
        if form == 7:
            return "bytes", take("bytes", number("bytes_bytes"))
        if form == 9:
            return "atomic", self.columns.text("atomic_bytes", "atomics")
        return "blob", (take("hashes", 32), number("blob_bytes"), form - 10)


# --- the bytes of an event, of which its id is the hash (bincode, variable-length integers) --------------------------


def uint(value):
    if value < 251:
        return bytes([value])
    for mark, size in ((251, 2), (252, 4), (253, 8)):
        if value < 1 << size * 8:
            return bytes([mark]) + value.to_bytes(size, "little")
    raise Bad("a number is too large")


def sint(value):
    return uint(((value << 1) ^ (value >> 63)) & U64)


def sized(data):
    data = data.encode() if isinstance(data, str) else data
    return uint(len(data)) + data


def maybe(value, encode):
    return b"\0" if value is None else b"\1" + encode(value)


def encode_value(value):
    form, content = value
    if form == "null":
        return uint(0)
    if form == "bool":
        return uint(1) + bytes([content])
    if form == "int":
        return uint(2) + sint(content)
    if form == "uint":
        return uint(3) + uint(content)
    if form == "float":
        return uint(4) + struct.pack("<d", content)
    if form == "text":
        return uint(5) + sized(content)
    if form == "bytes":
        return uint(6) + sized(content)
    if form == "object":
        return uint(7)
    if form == "atomic":
        return uint(8) + sized(content)
    return uint(9) + content[0] + uint(content[1]) + uint(content[2])


def encode_op(op):
    out = uint(op["kind"])
    if "path" in op:
        out += sized(op["path"])
    if "container" in op:
        event, index = op["container"]
        out += (uint(0) if event is None else uint(1) + event) + uint(index)
    if op["op"] == "put_atomic":
        return out + sized(op["value"][1])
    if "by" in op:
        out += sint(op["by"])
    if "index" in op:
        out += uint(op["index"])
    if "delete" in op:
        out += uint(op["delete"]) + sized(op["insert"])
    if "value" in op:
        out += encode_value(op["value"])
    return out


def encode(event):
    raw = lambda data: data
    out = b"SLEV\1" + sized(event["collection"]) + sized(event["key"]) + event["writer"] + uint(event["sequence"])
    out += uint(event["lane"]) + uint(event["nth"]) + uint(len(event["parents"])) + b"".join(event["parents"])
    out += sint(event["at"]) + uint(event["counter"]) + maybe(event["occurred_at"], sint) + sized(event["source"])
    out += maybe(event["principal"], sized) + maybe(event["reason"], sized) + maybe(event["made_by"], raw)
    out += bytes([event["delivery"]])
    out += maybe(event["idempotency"], lambda request: sized(request[0]) + request[1])
    out += maybe(event["batch"], lambda batch: batch[0] + uint(batch[1]) + uint(batch[2]))
    out += maybe(event["resolves"], raw) + maybe(event["reverts"], raw)
    return out + uint(0) + uint(len(event["ops"])) + b"".join(map(encode_op, event["ops"]))


# --- segments and files ----------------------------------------------------------------------------------------------


def read_segment(source, ledger):
    start = source.at
    if source.take(4) != b"SLSG":
        raise Bad(f"expected a segment at byte {start}")
    version = source.number(1)
    if version != 1:
        raise Bad(f"the segment has version {version}, this program reads 1")
    if source.take(16) != ledger:
        raise Bad("the segment is of another ledger")
    source.take(16)  # the first and the last position
    entry = lambda: [source.number(size) for size in (8, 4, 4, 4, 1)] + [source.take(32)]
    blocks = [entry() for _ in range(source.number(4))]
    covered = source.data[start : source.at]
    root = source.take(32)
    if fields("syncledger 2026-11 segment root v1", covered) != root:
        raise Bad("the hash of a segment's head does not fit")
    ids, places = [], {}
    for first, count, raw, stored, codec, block_hash in blocks:
        if codec != 0:
            raise Bad("it is compressed: make it with `syncledger backup FILE --codec none`")
        place, data = len(ids), source.take(stored)
        block = Block(data, first, ids, places)
        for _ in range(count):
            event = block.event()
            places[event["position"]] = len(ids)
            ids.append(fields("syncledger 2026-11 event id v1", ledger, encode(event)))
            event["event"] = ids[-1]
            yield event
        parts = (ledger, struct.pack("<Q", place), data, b"".join(ids[place:]))
        if fields("syncledger 2026-11 segment block v1", *parts) != block_hash:
            raise Bad(f"the block that begins at position {first} is damaged")
    return root


def read_file(data):
    source = Bytes(data)
    if source.take(4) != b"SLBK":
        raise Bad("it is no backup of syncledger")
    version = source.number(1)
    if version != 1:
        raise Bad(f"it has version {version}, this program reads 1")
    length = source.number(4)
    ledger = source.take(16)
    source.take(length - 16)  # positions, the event before, name, writers: who only prints needs none of them
    chain = fields("syncledger 2026-11 backup head v1", data[: source.at])
    if chain != source.take(32):
        raise Bad("the hash of its head does not fit")
    events = blobs = 0
    while True:
        kind = source.number(1)
        if kind == 1:
            segment = read_segment(source, ledger)
            while True:
                try:
                    event = next(segment)
                except StopIteration as end:
                    part = end.value
                    break
                events += 1
                yield event
        elif kind == 2:
            size, part = source.number(8), source.take(32)
            if derive_key("syncledger 2026-11 blob v1", source.take(size)) != part:
                raise Bad("a large value is damaged")
            blobs += 1
        elif kind == 3:
            counts = source.take(16)
            if fields("syncledger 2026-11 backup end v1", chain, counts) != source.take(32) or source.left():
                raise Bad("its end does not fit what it held")
            if counts != struct.pack("<QQ", events, blobs):
                raise Bad("it holds fewer parts than it says")
            return
        else:
            raise Bad(f"expected a part at byte {source.at - 1}")
        chain = fields("syncledger 2026-11 backup chain v1", chain, bytes([kind]), part)


# --- printing --------------------------------------------------------------------------------------------------------


def moment(millis):
    """RFC 3339 in UTC; what lies beyond its years, as the number."""
    if not -377705023201000 <= millis <= 253402207200999:
        return millis
    days, rest = divmod(millis, 86_400_000)
    # Days to year, month, day, as in Howard Hinnant's "chrono-compatible low-level date algorithms".
    days += 719468
    era, day_of_era = divmod(days, 146097)
    year = (day_of_era - day_of_era // 1460 + day_of_era // 36524 - day_of_era // 146096) // 365
    day_of_year = day_of_era - (365 * year + year // 4 - year // 100)
    month = (5 * day_of_year + 2) // 153
    day = day_of_year - (153 * month + 2) // 5 + 1
    month = month + 3 if month < 10 else month - 9
    year += era * 400 + (month <= 2)
    sign = f"-{-year:06}" if year < 0 else f"{year:04}"
    hours, rest = divmod(rest, 3_600_000)
    minutes, rest = divmod(rest, 60_000)
    return f"{sign}-{month:02}-{day:02}T{hours:02}:{minutes:02}:{rest // 1000:02}.{rest % 1000:03}Z"


def show_value(value):
    form, content = value
    if form == "bytes":
        return {"$bytes": content.hex()}
    if form == "object":
        return {}
    if form == "atomic":
        return json.loads(content)
    if form == "blob":
        names = ("text", "bytes", "json")
        return {"$blob": {"hash": content[0].hex(), "bytes": content[1], "form": names[content[2]]}}
    return content


def show_op(op):
    shown = {name: op[name] for name in ("op", "path", "by", "index", "delete", "insert") if name in op}
    if "value" in op:
        shown["member" if op["op"] in ("set_add", "set_remove") else "value"] = show_value(op["value"])
    if "container" in op:
        event, index = op["container"]
        shown["container"] = {"own": index} if event is None else {"of": [event.hex(), index]}
    return shown


def show(event):
    text = lambda data: None if data is None else data.hex()
    shown = {name: event[name] for name in "position collection key sequence lane nth counter source".split()}
    shown.update({name: event[name] for name in "principal reason delivery".split()})
    shown.update({name: text(event[name]) for name in "event writer resolves reverts".split()})
    shown["run"] = text(event["run"] or event["made_by"])
    shown["parents"] = [parent.hex() for parent in event["parents"]]
    shown["at"], shown["received_at"] = moment(event["at"]), moment(event["received_at"])
    shown["occurred_at"] = None if event["occurred_at"] is None else moment(event["occurred_at"])
    shown["idempotency_key"] = event["idempotency"] and event["idempotency"][0]
    batch = event["batch"]
    shown["batch"] = batch and {"id": batch[0].hex(), "index": batch[1], "count": batch[2]}
    shown["ops"] = [show_op(op) for op in event["ops"]]
    return json.dumps(shown, sort_keys=True, ensure_ascii=False, separators=(",", ":"))


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    sys.stdout.reconfigure(encoding="utf-8")
    with open(sys.argv[1], "rb") as file:
        data = file.read()
    try:
        for event in read_file(data):
            print(show(event))
    except (Bad, StopIteration, LookupError, UnicodeDecodeError) as fault:
        sys.exit(f"{sys.argv[1]}: {fault or 'it is damaged'}")


main()
