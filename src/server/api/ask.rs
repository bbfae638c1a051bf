//! What a request says besides its token: its address, its query, its headers, its body.

use axum::body::Bytes;
use axum::extract::{FromRequest, FromRequestParts, Path, Query, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, StatusCode, header};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value as Json};

use crate::event::json;
use crate::ledger::{AsOf, Context, Ledger};
use crate::projection::{Policy, Strategy};
use crate::server::Server;
use crate::server::caller::Caller;
use crate::server::problem::Problem;
use crate::shape::time;
use crate::{Error, ErrorKind, Result};

/// The parameters by which every change says why and when.
pub(super) const OF_CHANGES: [&str; 2] = ["reason", "occurred_at"];

/// The name of the request.
const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
const REASON: HeaderName = HeaderName::from_static("x-reason");

/// The variable parts of an address.
pub(super) struct Place<T>(pub(super) T);

impl<T: DeserializeOwned + Send> FromRequestParts<Server> for Place<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, server: &Server) -> Result<Self, Problem> {
        let found = Path::<T>::from_request_parts(parts, server).await;
        let Path(place) =
            found.map_err(|why| Problem::new(ErrorKind::Client, why.body_text()).with_status(why.status()))?;
        Ok(Self(place))
    }
}

/// The parameters of a query.
pub(super) struct Params(Vec<(String, String)>);

impl FromRequestParts<Server> for Params {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, server: &Server) -> Result<Self, Problem> {
        let found = Query::<Vec<(String, String)>>::from_request_parts(parts, server).await;
        let Query(pairs) = found.map_err(|why| Problem::new(ErrorKind::Client, why.body_text()))?;
        Ok(Self(pairs))
    }
}

impl Params {
    /// Refuses parameters of other names, which would be lost, and all but `where` a second time.
    pub(super) fn only(&self, names: &[&str]) -> Result<()> {
        for (index, (name, _)) in self.0.iter().enumerate() {
            let is_again = name != "where" && self.0.iter().skip(index + 1).any(|(other, _)| other == name);
            if is_again || !names.contains(&name.as_str()) {
                let message = match is_again {
                    true => format!("the parameter `{}` is there twice", crate::shape::cut(name, 60)),
                    false => format!("unknown parameter `{}`", crate::shape::cut(name, 60)),
                };
                let known = if names.is_empty() { "there is none".to_owned() } else { names.join(", ") };
                return Err(Error::new(ErrorKind::Client, message).with_hint(format!("known here: {known}")));
            }
        }
        Ok(())
    }

    /// Refuses parameters of other names than these and those of every change.
    pub(super) fn only_of_change(&self, names: &[&str]) -> Result<()> {
        self.only(&[names, &OF_CHANGES].concat())
    }

    /// The value of a parameter.
    pub(super) fn text(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(is, _)| is == name).map(|(_, value)| value.as_str())
    }

    /// The values of a parameter that may be there more than once.
    pub(super) fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(is, _)| is == name).map(|(_, value)| value.as_str())
    }

    /// All parameters but one.
    pub(super) fn without<'a>(&'a self, name: &'a str) -> impl Iterator<Item = (&'a str, &'a str)> {
        self.0.iter().filter(move |(is, _)| is != name).map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// The integer of a parameter.
    pub(super) fn number(&self, name: &str) -> Result<Option<u64>> {
        let read = |text: &str| text.parse().map_err(|_| malformed(name, text, "an integer from 0"));
        self.text(name).map(read).transpose()
    }

    /// How many to answer with: from 1 to `most`.
    pub(super) fn limit(&self, default: usize, most: usize) -> Result<usize> {
        match self.number("limit")? {
            None => Ok(default),
            Some(limit) if (1..=most as u64).contains(&limit) => Ok(limit as usize),
            Some(limit) => Err(malformed("limit", &limit.to_string(), &format!("an integer from 1 to {most}"))),
        }
    }

    /// Whether a parameter says yes.
    pub(super) fn flag(&self, name: &str) -> Result<bool> {
        match self.text(name) {
            None | Some("false") => Ok(false),
            Some("true" | "") => Ok(true),
            Some(other) => Err(malformed(name, other, "true or false")),
        }
    }

    /// The policy of the strategy that a parameter names, in its short form.
    pub(super) fn strategy(&self) -> Result<Option<Policy>> {
        Ok(self.text("strategy").map(|short| Strategy::parse(short).map(Policy::of)).transpose()?)
    }

    /// The moment of a ledger that a parameter names: a position or a time.
    pub(super) fn since(&self, name: &str) -> Result<Option<AsOf>> {
        let read = |text: &str| time::moment(text).ok_or_else(|| malformed(name, text, "a position or a time"));
        self.text(name).map(read).transpose()
    }

    /// The moment of a record that a parameter names: a position, a time, or the beginning of an event's id.
    pub(super) fn moment(
        &self,
        name: &str,
        ledger: &Ledger,
        (collection, key): (&str, &str),
    ) -> Result<Option<AsOf>> {
        let Some(text) = self.text(name) else { return Ok(None) };
        let found = crate::shape::moment(ledger, (collection, key), text)?;
        let none = || malformed(name, text, "a position, a time, or the beginning of an event's id");
        found.map(Some).ok_or_else(none)
    }
}

/// A parameter that says something else than it can.
pub(super) fn malformed(name: &str, got: &str, expected: &str) -> Error {
    let message = format!("expected {expected} in `{name}`, got `{}`", crate::shape::cut(got, 80));
    Error::new(ErrorKind::Client, message)
}

/// Who changes something, why, and under which name of the request.
pub(super) fn context(caller: &Caller, headers: &HeaderMap, params: &Params) -> Result<Context> {
    let mut context = caller.context();
    context.idempotency_key = text(headers, &IDEMPOTENCY_KEY)?;
    context.reason = text(headers, &REASON)?.or_else(|| params.text("reason").map(str::to_owned));
    context.occurred_at = params.text("occurred_at").map(time::parse).transpose()?;
    Ok(context)
}

fn text(headers: &HeaderMap, name: &HeaderName) -> Result<Option<String>> {
    let read = |value: &header::HeaderValue| {
        let read = std::str::from_utf8(value.as_bytes()).map(str::to_owned);
        read.map_err(|_| Error::new(ErrorKind::Client, format!("expected UTF-8 in the header `{name}`")))
    };
    headers.get(name).map(read).transpose()
}

/// The body of a request.
pub(super) struct Body {
    bytes: Bytes,
    media: Option<String>,
}

impl FromRequest<Server> for Body {
    type Rejection = Problem;

    async fn from_request(request: Request, server: &Server) -> Result<Self, Problem> {
        let media = request.headers().get(header::CONTENT_TYPE).map(|value| {
            let text = value.to_str().unwrap_or("?");
            text.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
        });
        let bytes = Bytes::from_request(request, server).await.map_err(|why| {
            let status = why.status();
            let too_large = status == StatusCode::PAYLOAD_TOO_LARGE;
            let kind = if too_large { ErrorKind::TooLarge } else { ErrorKind::Client };
            Problem::new(kind, why.body_text()).with_status(status)
        })?;
        Ok(Self { bytes, media })
    }
}

impl Body {
    /// The bytes, if they are said to be of one of these media types, or of none.
    ///
    /// # Errors
    /// 415.
    pub(super) fn of(self, types: &[&str]) -> Result<Bytes, Problem> {
        match self.media {
            Some(media) if !types.contains(&media.as_str()) => {
                let media = crate::shape::cut(&media, 80);
                let message = format!("expected a body of {}, got `{media}`", types.join(" or "));
                Err(Problem::new(ErrorKind::Client, message).with_status(StatusCode::UNSUPPORTED_MEDIA_TYPE))
            }
            _ => Ok(self.bytes),
        }
    }

    /// The bytes of a JSON text.
    ///
    /// # Errors
    /// 415.
    pub(super) fn json(self) -> Result<Bytes, Problem> {
        self.of(&["application/json"])
    }
}

/// A request for a change: who asks, with which parameters, why and under which name, and the body.
pub(super) struct Change {
    caller: Caller,
    params: Params,
    headers: HeaderMap,
    body: Body,
}

/// What is known of a request for a change, once its parameters and its body are of the right kind.
pub(super) struct Asked {
    pub(super) caller: Caller,
    pub(super) params: Params,
    pub(super) context: Context,
    pub(super) body: Bytes,
}

impl FromRequest<Server> for Change {
    type Rejection = Problem;

    async fn from_request(request: Request, server: &Server) -> Result<Self, Problem> {
        let (mut parts, body) = request.into_parts();
        let caller = Caller::from_request_parts(&mut parts, server).await?;
        let params = Params::from_request_parts(&mut parts, server).await?;
        let headers = parts.headers.clone();
        let body = Body::from_request(Request::from_parts(parts, body), server).await?;
        Ok(Self { caller, params, headers, body })
    }
}

impl Change {
    /// Takes it with these parameters, and those of every change, and with a body of JSON.
    pub(super) fn with(self, names: &[&str]) -> Result<Asked, Problem> {
        self.with_body(names, &["application/json"])
    }

    /// The same, with a body of one of these media types.
    pub(super) fn with_body(self, names: &[&str], types: &[&str]) -> Result<Asked, Problem> {
        let Self { caller, params, headers, body } = self;
        params.only_of_change(names)?;
        let context = context(&caller, &headers, &params)?;
        Ok(Asked { caller, params, context, body: body.of(types)? })
    }
}

/// The fields of an object that a request's body is.
pub(super) struct Fields(Map<String, Json>);

impl Fields {
    /// Reads a body. A field of another name than these is refused: it would be lost. An empty body has no fields.
    pub(super) fn read(body: &[u8], names: &[&str]) -> Result<Self> {
        let parsed = if body.trim_ascii().is_empty() { Json::Object(Map::new()) } else { json::parse_bytes(body)? };
        let Json::Object(fields) = parsed else { return Err(invalid("expected an object", "")) };
        match fields.keys().find(|name| !names.contains(&name.as_str())) {
            Some(extra) => {
                let message = format!("unknown field `{}`", crate::shape::cut(extra, 60));
                Err(invalid(&message, extra).with_hint(format!("known here: {}", names.join(", "))))
            }
            None => Ok(Self(fields)),
        }
    }

    /// A field's value, where it is there.
    pub(super) fn json(&mut self, name: &str) -> Option<Json> {
        self.0.remove(name)
    }

    /// A field's text, where it is there.
    pub(super) fn text(&mut self, name: &str) -> Result<Option<String>> {
        match self.0.remove(name) {
            None => Ok(None),
            Some(Json::String(text)) => Ok(Some(text)),
            Some(_) => Err(invalid(&format!("`{name}` is a string"), name)),
        }
    }
}

/// A body that says something else than it can.
pub(super) fn invalid(message: &str, field: &str) -> Error {
    let pointers = if field.is_empty() { Vec::new() } else { vec![format!("/{}", crate::event::escape(field))] };
    Error::new(ErrorKind::Validation, message).with_pointers(pointers)
}
