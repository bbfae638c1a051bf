//! What is counted of a server, in the text format of Prometheus. Labels have few values: never a device, a tenant or a key.

use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::response::IntoResponse;
use axum::routing::get;
use metrics::{Counter, Gauge, Histogram, Key, Label, Level, Metadata, Recorder as _, Unit};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusRecorder};

use super::Server;
use super::problem::Answer;
use crate::ledger::Traffic;

/// Upper bounds of the durations that are told apart, in seconds.
const SECONDS: [f64; 12] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0, 30.0, 300.0];

const SEEN: Metadata<'static> = Metadata::new("syncledger", Level::INFO, None);

/// The figures of a server.
pub(super) struct Figures {
    recorder: PrometheusRecorder,
    sessions: Gauge,
    session_seconds: Histogram,
    refused: Counter,
    events: [Counter; 2],
    bytes: [Counter; 2],
}

impl Default for Figures {
    fn default() -> Self {
        // The bounds are not none, which is all that is asked of them.
        let recorder = PrometheusBuilder::new()
            .set_buckets(&SECONDS)
            .map_or_else(|_| PrometheusBuilder::new().build_recorder(), PrometheusBuilder::build_recorder);
        describe(&recorder);
        let by_direction = |name: &'static str| {
            ["in", "out"].map(|way| {
                recorder.register_counter(&Key::from_parts(name, vec![Label::new("direction", way)]), &SEEN)
            })
        };
        Self {
            sessions: recorder.register_gauge(&Key::from_name("syncledger_sessions"), &SEEN),
            session_seconds: recorder.register_histogram(&Key::from_name("syncledger_session_seconds"), &SEEN),
            refused: recorder.register_counter(&Key::from_name("syncledger_events_refused_total"), &SEEN),
            events: by_direction("syncledger_events_total"),
            bytes: by_direction("syncledger_session_bytes_total"),
            recorder,
        }
    }
}

fn describe(recorder: &PrometheusRecorder) {
    let counted = [
        ("syncledger_events_refused_total", "Events of devices that were refused."),
        ("syncledger_events_total", "Events that went over sessions with devices."),
        ("syncledger_session_bytes_total", "Bytes of messages that went over sessions with devices."),
        ("syncledger_sessions_total", "Sessions with devices that have ended, by how."),
        ("syncledger_requests_total", "Requests, by route, method and status."),
        ("syncledger_backups_total", "Backups of ledgers that the server made by itself, by how they went."),
    ];
    for (name, what) in counted {
        recorder.describe_counter(name.into(), None, what.into());
    }
    recorder.describe_gauge("syncledger_sessions".into(), None, "Sessions with devices that are open.".into());
    for (name, what) in [
        ("syncledger_session_seconds", "How long sessions with devices lasted."),
        ("syncledger_request_seconds", "How long requests took, by route."),
    ] {
        recorder.describe_histogram(name.into(), Some(Unit::Seconds), what.into());
    }
}

impl Figures {
    /// A session has begun.
    pub(super) fn begun(&self) {
        self.sessions.increment(1.0);
    }

    /// A session has ended.
    pub(super) fn ended(&self, status: &'static str, took: Duration, traffic: &Traffic) {
        self.sessions.decrement(1.0);
        self.session_seconds.record(took.as_secs_f64());
        self.refused.increment(traffic.refused);
        let ((received, sent), bytes) = (traffic.events(), (traffic.received_bytes, traffic.sent_bytes));
        let [events_in, events_out] = &self.events;
        let [bytes_in, bytes_out] = &self.bytes;
        events_in.increment(received);
        events_out.increment(sent);
        bytes_in.increment(bytes.0);
        bytes_out.increment(bytes.1);
        let key = Key::from_parts("syncledger_sessions_total", vec![Label::new("status", status)]);
        self.recorder.register_counter(&key, &SEEN).increment(1);
    }

    /// A backup was made, or was not.
    pub(super) fn backed_up(&self, status: &'static str) {
        let key = Key::from_parts("syncledger_backups_total", vec![Label::new("status", status)]);
        self.recorder.register_counter(&key, &SEEN).increment(1);
    }

    /// A request was answered.
    pub(super) fn answered(&self, route: String, method: String, status: u16, took: Duration) {
        let by_route = Label::new("route", route);
        let labels = vec![by_route.clone(), Label::new("method", method), Label::new("status", status.to_string())];
        self.recorder.register_counter(&Key::from_parts("syncledger_requests_total", labels), &SEEN).increment(1);
        let key = Key::from_parts("syncledger_request_seconds", vec![by_route]);
        self.recorder.register_histogram(&key, &SEEN).record(took.as_secs_f64());
    }
}

pub(super) fn routes() -> Router<Server> {
    Router::new().route("/metrics", get(render))
}

/// The figures, for Prometheus.
async fn render(State(server): State<Server>) -> Answer<impl IntoResponse> {
    let handle = server.0.figures.recorder.handle();
    handle.run_upkeep();
    // Where too much is at work the figures are wanted most.
    let gauges = server.own(Server::gauges).await?;
    Ok(([("content-type", "text/plain; version=0.0.4")], handle.render() + &gauges))
}
