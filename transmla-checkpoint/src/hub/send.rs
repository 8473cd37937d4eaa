//! Requests that carry something: to the hub, and to where it says that large files go.

use std::io::Read;
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde_json::Value;
use ureq::SendBody;
use ureq::http::header::{ACCEPT, ACCEPT_ENCODING, AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, ETAG, RETRY_AFTER};
use ureq::http::{HeaderValue, Method, Request};

use super::address::Address;
use super::client::{Client, Failure, Guarded, LEAST_RATE, cut, refused, text};

/// Most bytes of an answer that is read.
const LARGEST_ANSWER: u64 = 16 << 20;

/// Most bytes of a refusal that are read, and characters that are quoted.
const LARGEST_REFUSAL: u64 = 1 << 16;

/// What a request carries is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Json,
    /// JSON of git's protocol for large files.
    LargeFiles,
    /// A JSON value a line.
    Lines,
}

impl Kind {
    fn mime(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::LargeFiles => "application/vnd.git-lfs+json",
            Self::Lines => "application/x-ndjson",
        }
    }
}

/// What came back, which says that it is done.
pub(super) struct Reply {
    /// The tag of a part that was stored.
    pub etag: Option<String>,
    body: Guarded,
}

impl Reply {
    /// The answer, which is JSON.
    pub fn json<T: DeserializeOwned>(self) -> Result<T, Failure> {
        let mut answer = Vec::new();
        let read = self.body.take(LARGEST_ANSWER).read_to_end(&mut answer);
        read.map_err(|error| Failure::Network(format!("the answer broke off: {error}")))?;
        serde_json::from_slice(&answer)
            .map_err(|error| Failure::Refused(format!("the server does not answer as a hub does ({error})")))
    }
}

impl Client<'_> {
    /// Sends a text.
    pub fn post(&self, address: &Address, kind: Kind, contents: &[u8]) -> Result<Reply, Failure> {
        let mut contents = contents;
        let length = contents.len() as u64;
        self.exchange(&Method::POST, address, Some(kind), &mut contents, length)
    }

    /// Sends so many bytes of a file.
    pub fn put(&self, address: &Address, contents: &mut dyn Read, length: u64) -> Result<Reply, Failure> {
        self.exchange(&Method::PUT, address, None, contents, length)
    }

    /// An address that the hub names, which must not be less safe than its own.
    pub fn named(&self, href: &str) -> Result<Address, Failure> {
        let hub = Address::parse(&self.at("")).map_err(|problem| refused("HF_ENDPOINT", &problem.to_string()))?;
        hub.join(href)
            .map_err(|problem| refused(&hub, &format!("it names the address {:?}: {problem}", cut(href))))
    }

    fn exchange(
        &self,
        method: &Method,
        address: &Address,
        kind: Option<Kind>,
        contents: &mut dyn Read,
        length: u64,
    ) -> Result<Reply, Failure> {
        let mut request = Request::builder()
            .method(method)
            .uri(address.as_str())
            .header(ACCEPT_ENCODING, "identity")
            .header(CONTENT_LENGTH, length);
        if let Some(kind) = kind {
            request = request.header(CONTENT_TYPE, kind.mime());
            let answer = if kind == Kind::LargeFiles { kind } else { Kind::Json };
            request = request.header(ACCEPT, answer.mime());
        }
        if let Some(token) = self.token_for(address)? {
            request = request.header(AUTHORIZATION, token);
        }
        let request = request.body(SendBody::from_reader(contents));
        let request = request.map_err(|error| refused(address, &error.to_string()))?;
        // What is sent slower than that has stalled.
        let most = self.options.timeouts.stall + Duration::from_secs(length / LEAST_RATE);
        let request = self.agent.configure_request(request);
        let response = self.agent.run(request.timeout_send_body(Some(most)).build());
        let response = response.map_err(|error| Failure::Network(format!("{}: {error}", address.host())))?;
        let (head, body) = response.into_parts();
        let body = Guarded::new(body.into_reader(), self.options.timeouts.stall);
        if head.status.is_success() {
            let etag = text(&head.headers, &ETAG);
            return Ok(Reply { etag, body });
        }
        let wait = text(&head.headers, &RETRY_AFTER).and_then(|text| text.parse().ok());
        let status = head.status.as_u16();
        match (status, words(body)) {
            (300..=399, _) => Err(refused(
                address,
                &format!("it redirects what is sent (status {status})"),
            )),
            (401 | 403 | 404 | 408 | 409 | 429 | 500.., _) | (_, None) => {
                Err(Failure::Status(status, wait.map(Duration::from_secs)))
            }
            (_, Some(words)) => Err(refused(
                address,
                &format!("it refuses what is sent: {words:?} (status {status})"),
            )),
        }
    }

    /// The header that has the token, for the hub alone.
    pub fn token_for(&self, address: &Address) -> Result<Option<HeaderValue>, Failure> {
        let Some(token) = self.options.token.as_ref().filter(|_| address.origin() == self.origin) else {
            return Ok(None);
        };
        let value = HeaderValue::try_from(format!("Bearer {token}"));
        let mut value = value.map_err(|_| Failure::Refused("HF_TOKEN has characters that no token has".into()))?;
        value.set_sensitive(true);
        Ok(Some(value))
    }
}

/// Why a server refuses, in its own words: the key `error` or `message` of the JSON that it sends.
fn words(body: impl Read) -> Option<String> {
    let mut answer = Vec::new();
    body.take(LARGEST_REFUSAL).read_to_end(&mut answer).ok()?;
    let answer: Value = serde_json::from_slice(&answer).ok()?;
    let words = ["error", "message"].iter().find_map(|key| answer.get(key)?.as_str())?;
    let words: String = words.chars().filter(|letter| !letter.is_control()).take(300).collect();
    (!words.is_empty()).then_some(words)
}
