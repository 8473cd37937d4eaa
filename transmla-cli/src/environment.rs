//! What the environment says about the Hugging Face hub.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use transmla_core::checkpoint::read_regular_text;
use transmla_core::hub::{HubOptions, HubTimeouts};

use crate::downloads::Downloads;
use crate::printer::Printer;

/// How the hub is reached, by the variables that its Python client reads.
pub fn hub_options(printer: &Printer) -> HubOptions {
    HubOptions {
        observer: Some(Arc::new(Downloads::new(printer))),
        ..read(&variable)
    }
}

/// The folder of the hub's cache.
pub fn hub_cache() -> Option<PathBuf> {
    read(&variable).cache
}

/// The user's name, as the home folder tells it.
pub fn user_name() -> Option<String> {
    let home = variable("HOME")
        .or_else(|| variable("USERPROFILE"))
        .map(PathBuf::from)?;
    Some(home.file_name()?.to_string_lossy().into_owned())
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// Most bytes of the file of a token, which has some tens.
const LARGEST_TOKEN: u64 = 1 << 16;

/// Names of a proxy's variable, the one that counts first.
const PROXIES: [&str; 6] = [
    "ALL_PROXY",
    "all_proxy",
    "HTTPS_PROXY",
    "https_proxy",
    "HTTP_PROXY",
    "http_proxy",
];

fn read(variable: &dyn Fn(&str) -> Option<String>) -> HubOptions {
    let seconds = |name: &str| {
        let number = variable(name)?.trim().parse().ok().filter(|number| *number > 0)?;
        Some(Duration::from_secs(number))
    };
    let home = variable("HF_HOME").map(PathBuf::from);
    let client_home = home.clone().or_else(|| {
        let cache = variable("XDG_CACHE_HOME").map(PathBuf::from);
        let cache = cache.or_else(|| Some(PathBuf::from(variable("HOME")?).join(".cache")));
        Some(cache?.join("huggingface"))
    });
    let cache = variable("HF_HUB_CACHE").map(PathBuf::from);
    let token = variable("HF_TOKEN").or_else(|| {
        let file = variable("HF_TOKEN_PATH").map(PathBuf::from);
        let file = file.or_else(|| Some(client_home.as_ref()?.join("token")))?;
        read_regular_text(&file, LARGEST_TOKEN).ok()
    });
    HubOptions {
        cache: cache.or_else(|| Some(client_home?.join("hub"))),
        token: token
            .map(|token| token.trim().to_owned())
            .filter(|token| !token.is_empty()),
        offline: variable("HF_HUB_OFFLINE").is_some_and(|value| is_true(&value)),
        endpoint: variable("HF_ENDPOINT").map(|url| url.trim_end_matches('/').to_owned()),
        proxy: PROXIES.iter().find_map(|name| variable(name)),
        no_proxy: variable("NO_PROXY")
            .or_else(|| variable("no_proxy"))
            .map(|hosts| hosts.split(',').map(|host| host.trim().to_owned()).collect())
            .unwrap_or_default(),
        timeouts: HubTimeouts {
            answer: seconds("HF_HUB_ETAG_TIMEOUT").unwrap_or(HubTimeouts::default().answer),
            stall: seconds("HF_HUB_DOWNLOAD_TIMEOUT").unwrap_or(HubTimeouts::default().stall),
            ..HubTimeouts::default()
        },
        observer: None,
    }
}

fn is_true(value: &str) -> bool {
    ["1", "ON", "YES", "TRUE"].contains(&value.to_ascii_uppercase().as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(variables: &[(&str, &str)]) -> HubOptions {
        read(&|name| {
            let found = variables.iter().find(|(key, _)| *key == name);
            found.map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn variables_have_the_order_of_the_python_client() {
        let cache = |variables: &[_]| options(variables).cache.unwrap();
        assert_eq!(cache(&[("HOME", "/u")]), PathBuf::from("/u/.cache/huggingface/hub"));
        assert_eq!(cache(&[("HOME", "/u"), ("HF_HOME", "/h")]), PathBuf::from("/h/hub"));
        assert_eq!(cache(&[("HF_HOME", "/h"), ("HF_HUB_CACHE", "/c")]), PathBuf::from("/c"));
        assert_eq!(options(&[]).cache, None);
        assert!(options(&[("HF_HUB_OFFLINE", "True")]).offline && !options(&[("HF_HUB_OFFLINE", "0")]).offline);
        let endpoint = options(&[("HF_ENDPOINT", "http://mirror/")]).endpoint;
        assert_eq!(endpoint.as_deref(), Some("http://mirror"));
    }

    #[test]
    fn proxies_and_timeouts_are_those_of_the_environment() {
        let plain = options(&[]);
        assert_eq!(
            (plain.proxy, plain.no_proxy.len(), plain.timeouts),
            (None, 0, HubTimeouts::default())
        );
        let set = options(&[
            ("http_proxy", "http://second"),
            ("HTTPS_PROXY", "http://first"),
            ("no_proxy", "localhost, .example.org"),
            ("HF_HUB_ETAG_TIMEOUT", "7"),
            ("HF_HUB_DOWNLOAD_TIMEOUT", "x"),
        ]);
        assert_eq!(set.proxy.as_deref(), Some("http://first"));
        assert_eq!(set.no_proxy, ["localhost", ".example.org"]);
        assert_eq!(set.timeouts.answer, Duration::from_secs(7));
        assert_eq!(set.timeouts.stall, HubTimeouts::default().stall);
    }

    #[test]
    fn a_token_file_serves_where_no_token_is_given() {
        let home = tempfile::tempdir().unwrap();
        std::fs::write(home.path().join("token"), "secret\n").unwrap();
        let home = home.path().to_str().unwrap();
        assert_eq!(options(&[("HF_HOME", home)]).token.as_deref(), Some("secret"));
        let given = options(&[("HF_HOME", home), ("HF_TOKEN", "other")]);
        assert_eq!(given.token.as_deref(), Some("other"));
        assert_eq!(options(&[("HF_TOKEN_PATH", "/nowhere")]).token, None);
    }
}
