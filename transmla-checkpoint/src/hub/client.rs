//! Requests to the hub: redirects, the token, timeouts, repetitions.

use std::io::Read;
use std::time::{Duration, Instant};

use ureq::http::header::{
    ACCEPT_ENCODING, AUTHORIZATION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, ETAG, HeaderMap, LOCATION, RANGE,
    RETRY_AFTER,
};
use ureq::http::{HeaderName, Method, Request};
use ureq::{Agent, BodyReader, Proxy};

use super::address::{Address, Origin};
use super::names::BlobId;
use super::options::HubOptions;

/// The public hub.
const HUB: &str = "https://huggingface.co";

/// Most redirects of one request.
const REDIRECTS: usize = 10;

/// The longest pause between two attempts.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// Bytes that must come in a second for a transfer not to count as stalled.
pub(super) const LEAST_RATE: u64 = 1024;

/// Why a request came to nothing.
#[derive(Debug)]
pub(super) enum Failure {
    /// The server answered with this status, and may have said how long to wait.
    Status(u16, Option<Duration>),
    /// No connection, no answer in time, or one that broke off.
    Network(String),
    /// What the server answers is not acceptable, and would not be if it were asked again.
    Refused(String),
    /// The cache cannot be read or written.
    Local(String),
}

impl Failure {
    /// Whether the same request may succeed later.
    pub fn may_pass(&self) -> bool {
        match self {
            Self::Status(status, _) => matches!(status, 408 | 429 | 500..=599),
            Self::Network(_) => true,
            Self::Refused(_) | Self::Local(_) => false,
        }
    }

    /// What to do about it.
    pub fn explain(&self, revision: &str, has_token: bool) -> String {
        match self {
            // The hub answers 401 for what does not exist, so as not to say what does.
            Self::Status(401, _) if !has_token => {
                "it does not exist, or is private or gated: check the id, or set HF_TOKEN (status 401)".into()
            }
            Self::Status(403, _) if !has_token => {
                "it is private or gated: accept its licence on the hub and set HF_TOKEN (status 403)".into()
            }
            Self::Status(status @ (401 | 403), _) => {
                format!(
                    "HF_TOKEN gives no access to it: accept its licence on the hub, or check the id (status {status})"
                )
            }
            Self::Status(404, _) => {
                format!("there is no such repository or revision {revision}: check the id (status 404)")
            }
            Self::Status(status, _) => {
                format!("the server answers with status {status}; check the network, or use a local folder")
            }
            Self::Network(problem) => format!("{problem}; check the network, or use a local folder"),
            Self::Refused(problem) | Self::Local(problem) => problem.clone(),
        }
    }
}

/// What the headers of an answer, and of the redirects before it, say about a file.
#[derive(Debug, Clone, Default)]
pub(super) struct Facts {
    /// The commit that the hub took it from.
    pub commit: Option<String>,
    /// Its hash, as it was sent.
    pub etag: Option<String>,
    /// Its size.
    pub size: Option<u64>,
    /// Whether hash and size are those that the hub itself gave along with a redirect to a large file.
    pub linked: bool,
}

/// An answer with a body that was asked for.
pub(super) struct Answer {
    /// 200 or 206.
    pub status: u16,
    /// What is known of the file.
    pub facts: Facts,
    /// First byte of the body, and the size of the whole, as a `Content-Range` says.
    pub range: Option<(u64, Option<u64>)>,
    /// The body; fails when nothing comes for too long.
    pub body: Guarded,
}

/// A connection to one hub.
pub(super) struct Client<'a> {
    pub(super) agent: Agent,
    pub(super) options: &'a HubOptions,
    pub(super) origin: Origin,
    /// Without a slash at its end.
    endpoint: String,
}

impl<'a> Client<'a> {
    pub fn new(options: &'a HubOptions) -> Result<Self, Failure> {
        let endpoint = options
            .endpoint
            .as_deref()
            .unwrap_or(HUB)
            .trim_end_matches('/')
            .to_owned();
        let origin = Address::parse(&endpoint).map(|address| address.origin());
        let origin = origin.map_err(|problem| {
            // A password is not shown.
            let shown = endpoint.rsplit('@').next().unwrap_or_default();
            Failure::Refused(format!("HF_ENDPOINT {shown:?}: {problem}"))
        })?;
        let timeouts = &options.timeouts;
        let config = Agent::config_builder()
            // Every redirect is looked at here.
            .max_redirects(0)
            .max_redirects_will_error(false)
            .http_status_as_error(false)
            .proxy(proxy(options)?)
            .user_agent(concat!("transmla/", env!("CARGO_PKG_VERSION")))
            .timeout_resolve(Some(timeouts.connect))
            .timeout_connect(Some(timeouts.connect))
            .timeout_send_request(Some(timeouts.answer))
            .timeout_recv_response(Some(timeouts.answer))
            .timeout_per_read(Some(timeouts.stall))
            .build();
        Ok(Self {
            agent: config.new_agent(),
            options,
            origin,
            endpoint,
        })
    }

    /// An address of the hub.
    pub fn at(&self, path: &str) -> String {
        format!("{}/{path}", self.endpoint)
    }

    /// What the hub says about a file, without its contents.
    pub fn facts(&self, url: &str) -> Result<Facts, Failure> {
        self.request(&Method::HEAD, url, 0).map(|answer| answer.facts)
    }

    /// The contents of an address from a byte on; the server may ignore from which.
    pub fn get(&self, url: &str, from: u64) -> Result<Answer, Failure> {
        self.request(&Method::GET, url, from)
    }

    /// Repeats a request while it fails for a reason that may pass.
    pub fn patiently<T>(
        &self,
        retries: u32,
        what: &str,
        request: &mut dyn FnMut() -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let mut attempt = 0;
        loop {
            match request() {
                Err(failure) if failure.may_pass() && attempt < retries => self.pause(attempt, what, &failure),
                other => return other,
            }
            attempt += 1;
        }
    }

    /// Waits before another attempt, longer each time.
    pub fn pause(&self, attempt: u32, what: &str, failure: &Failure) {
        self.options.tell(&super::observer::HubEvent::Retrying {
            what,
            problem: &failure.explain("", self.has_token()),
        });
        let pause = self.options.timeouts.pause.saturating_mul(1 << attempt.min(10));
        let pause = match failure {
            Failure::Status(_, Some(asked)) => pause.max(*asked),
            _ => pause,
        };
        std::thread::sleep(pause.min(LONGEST_PAUSE));
    }

    pub fn has_token(&self) -> bool {
        self.options.token.is_some()
    }

    /// Sends a request and follows redirects.
    fn request(&self, method: &Method, url: &str, from: u64) -> Result<Answer, Failure> {
        let mut address = Address::parse(url).map_err(|problem| refused(url, &problem.to_string()))?;
        let mut visited = vec![address.clone()];
        let mut facts = Facts::default();
        loop {
            let response = self.send(method, &address, from)?;
            let (head, body) = response.into_parts();
            let status = head.status.as_u16();
            facts.learn(&head.headers, head.status.is_redirection());
            if matches!(status, 301 | 302 | 303 | 307 | 308) {
                // Where large files lie may be closed to such questions, and the hub has answered.
                if method == Method::HEAD && facts.linked {
                    return Ok(self.answer(200, facts, &head.headers, body));
                }
                let location = text(&head.headers, &LOCATION).filter(|text| !text.trim().is_empty());
                let location = location.ok_or_else(|| refused(&address, "it redirects to nowhere (no Location)"))?;
                let next = address.join(&location).map_err(|problem| {
                    refused(&address, &format!("it redirects to {:?}: {problem}", cut(&location)))
                })?;
                if visited.contains(&next) {
                    return Err(refused(&address, "it redirects in a circle"));
                }
                if visited.len() > REDIRECTS {
                    return Err(refused(&address, &format!("more than {REDIRECTS} redirects")));
                }
                visited.push(next.clone());
                address = next;
                continue;
            }
            if !matches!(status, 200 | 206) {
                let wait = text(&head.headers, &RETRY_AFTER).and_then(|text| text.parse().ok());
                return Err(Failure::Status(status, wait.map(Duration::from_secs)));
            }
            if let Some(coding) = text(&head.headers, &CONTENT_ENCODING).filter(|coding| coding != "identity") {
                return Err(refused(
                    &address,
                    &format!("it sends the coding {coding:?}, which was not asked for"),
                ));
            }
            return Ok(self.answer(status, facts, &head.headers, body));
        }
    }

    fn send(&self, method: &Method, address: &Address, from: u64) -> Result<ureq::http::Response<ureq::Body>, Failure> {
        let mut request = Request::builder()
            .method(method)
            .uri(address.as_str())
            .header(ACCEPT_ENCODING, "identity");
        if let Some(token) = self.token_for(address)? {
            request = request.header(AUTHORIZATION, token);
        }
        if from > 0 {
            request = request.header(RANGE, format!("bytes={from}-"));
        }
        let request = request.body(()).map_err(|error| refused(address, &error.to_string()))?;
        self.agent
            .run(request)
            .map_err(|error| Failure::Network(format!("{}: {error}", address.host())))
    }

    fn answer(&self, status: u16, facts: Facts, headers: &HeaderMap, body: ureq::Body) -> Answer {
        let range = text(headers, &CONTENT_RANGE);
        Answer {
            status,
            facts,
            range: range.as_deref().and_then(parse_range),
            body: Guarded::new(body.into_reader(), self.options.timeouts.stall),
        }
    }
}

impl Facts {
    /// Takes what is not known yet from an answer's headers.
    fn learn(&mut self, headers: &HeaderMap, redirects: bool) {
        let custom = |name: &'static str| text(headers, &HeaderName::from_static(name));
        let number = |text: Option<String>| text.and_then(|text| text.trim().parse().ok());
        self.commit = self.commit.take().or_else(|| custom("x-repo-commit"));
        if self.linked {
            return;
        }
        if let Some(etag) = custom("x-linked-etag") {
            self.linked = true;
            self.etag = Some(etag);
            self.size = number(custom("x-linked-size"));
        } else if !redirects {
            // The tag and the length of a redirect are its own.
            self.etag = text(headers, &ETAG);
            self.size = number(text(headers, &CONTENT_LENGTH));
        }
    }

    /// The hash of the file.
    pub fn blob(&self) -> Result<BlobId, Failure> {
        let expected = "expected 40 or 64 hexadecimal digits";
        match &self.etag {
            Some(etag) => BlobId::from_etag(etag)
                .ok_or_else(|| Failure::Refused(format!("the server sends the ETag {:?}; {expected}", cut(etag)))),
            None => Err(Failure::Refused(format!("the server sends no ETag; {expected}"))),
        }
    }
}

/// A body that fails when it comes too slowly.
pub(super) struct Guarded {
    inner: BodyReader<'static>,
    window: Duration,
    since: Instant,
    come: u64,
}

impl Guarded {
    pub fn new(inner: BodyReader<'static>, window: Duration) -> Self {
        Self {
            inner,
            window,
            since: Instant::now(),
            come: 0,
        }
    }
}

impl Read for Guarded {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.come += count as u64;
        let passed = self.since.elapsed();
        if count > 0 && passed >= self.window {
            if (self.come as f64) < LEAST_RATE as f64 * passed.as_secs_f64() {
                let rate = format!("{} bytes in {:.1} s", self.come, passed.as_secs_f64());
                return Err(std::io::Error::new(std::io::ErrorKind::TimedOut, rate));
            }
            (self.since, self.come) = (Instant::now(), 0);
        }
        Ok(count)
    }
}

fn proxy(options: &HubOptions) -> Result<Option<Proxy>, Failure> {
    let Some(url) = &options.proxy else { return Ok(None) };
    // Its address may hold a password.
    let bad = |_| Failure::Refused("the proxy that the environment names has no usable address".into());
    let parsed = Proxy::new(url).map_err(bad)?;
    let mut builder = Proxy::builder(parsed.protocol())
        .host(parsed.host())
        .port(parsed.port());
    if let (Some(name), Some(password)) = (parsed.username(), parsed.password()) {
        builder = builder.username(name).password(password);
    }
    for host in &options.no_proxy {
        builder = builder.no_proxy(host);
    }
    builder.build().map(Some).map_err(bad)
}

/// `bytes 5-9/10` as its first byte and the size of the whole.
fn parse_range(text: &str) -> Option<(u64, Option<u64>)> {
    let (range, size) = text.trim().strip_prefix("bytes ")?.split_once('/')?;
    Some((range.split_once('-')?.0.parse().ok()?, size.parse().ok()))
}

pub(super) fn text(headers: &HeaderMap, name: &HeaderName) -> Option<String> {
    headers.get(name)?.to_str().ok().map(str::to_owned)
}

/// The beginning of what a server sent, for a message.
pub(super) fn cut(text: &str) -> String {
    text.chars().take(100).collect()
}

pub(super) fn refused(address: impl std::fmt::Display, problem: &str) -> Failure {
    Failure::Refused(format!("{address}: {problem}"))
}
