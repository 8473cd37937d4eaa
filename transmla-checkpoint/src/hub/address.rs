//! Addresses of the web, as far as redirects need them.

use std::fmt;

use ureq::http::Uri;

/// An absolute `http` or `https` address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Address {
    text: String,
    uri: Uri,
}

/// What a token is meant for: scheme, host and port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Origin {
    scheme: String,
    host: String,
    port: u16,
}

/// Why an address is not used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum BadAddress {
    #[error("not an address")]
    Unreadable,
    #[error("not an http or https address")]
    OtherScheme,
    #[error("an address with a user's name in it")]
    WithUser,
    #[error("an address without encryption")]
    Unencrypted,
}

impl Address {
    /// Reads an address.
    ///
    /// # Errors
    /// It is relative, of another scheme, or has a user's name in it, which some programs take for the host.
    pub fn parse(text: &str) -> Result<Self, BadAddress> {
        let uri: Uri = text.parse().map_err(|_| BadAddress::Unreadable)?;
        match (uri.scheme_str(), uri.authority()) {
            (Some("http" | "https"), Some(authority)) if !authority.host().is_empty() => {
                if authority.as_str().contains('@') {
                    return Err(BadAddress::WithUser);
                }
            }
            _ => return Err(BadAddress::OtherScheme),
        }
        // What follows a `#` is for browsers.
        let text = text.split('#').next().unwrap_or(text).to_owned();
        Ok(Self { text, uri })
    }

    /// Where a `Location` leads from here.
    ///
    /// # Errors
    /// As for [`Self::parse`], and from `https` to `http`.
    pub fn join(&self, location: &str) -> Result<Self, BadAddress> {
        let location = location.trim();
        let (scheme, authority) = (self.uri.scheme_str().unwrap_or("https"), self.uri.authority());
        let authority = authority.map_or("", |authority| authority.as_str());
        let path = self.uri.path();
        let joined = match location {
            _ if has_scheme(location) => location.to_owned(),
            _ if location.starts_with("//") => format!("{scheme}:{location}"),
            _ if location.starts_with('/') => format!("{scheme}://{authority}{location}"),
            _ if location.starts_with('?') => format!("{scheme}://{authority}{path}{location}"),
            _ => {
                let folder = path.rfind('/').map_or("/", |end| &path[..=end]);
                format!("{scheme}://{authority}{folder}{location}")
            }
        };
        let next = Self::parse(&joined)?;
        if scheme == "https" && next.uri.scheme_str() != Some("https") {
            return Err(BadAddress::Unencrypted);
        }
        Ok(next)
    }

    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Host and port, for messages.
    pub fn host(&self) -> &str {
        self.uri.authority().map_or("", |authority| authority.as_str())
    }

    pub fn origin(&self) -> Origin {
        let scheme = self.uri.scheme_str().unwrap_or_default().to_owned();
        let port = self.uri.port_u16().unwrap_or(if scheme == "http" { 80 } else { 443 });
        Origin {
            host: self.uri.host().unwrap_or_default().to_ascii_lowercase(),
            scheme,
            port,
        }
    }
}

impl fmt::Display for Address {
    /// Without what follows a `?`: signatures of addresses are secrets too.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text.split('?').next().unwrap_or_default())
    }
}

/// Whether a text begins with a scheme such as `https:`.
fn has_scheme(text: &str) -> bool {
    let Some((scheme, _)) = text.split_once(':') else {
        return false;
    };
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.');
    scheme.starts_with(|first: char| first.is_ascii_alphabetic()) && scheme.bytes().all(plain)
}

/// A text as one part of an address, or, with slashes kept, as a path in one.
pub(super) fn encode(text: &str, keep_slashes: bool) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => out.push(byte as char),
            b'/' if keep_slashes => out.push('/'),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redirects_lead_where_browsers_would_go() {
        let from = Address::parse("https://hub.example/a/b?c=d").unwrap();
        let to = |location: &str| from.join(location).map(|next| next.as_str().to_owned());
        for (location, expected) in [
            ("/x?y", "https://hub.example/x?y"),
            ("x", "https://hub.example/a/x"),
            ("?z", "https://hub.example/a/b?z"),
            ("//cdn.example/x", "https://cdn.example/x"),
            ("https://cdn.example:444/x#y", "https://cdn.example:444/x"),
            ("./a:b", "https://hub.example/a/./a:b"),
        ] {
            assert_eq!(to(location).unwrap(), expected, "{location}");
        }
        for location in [
            "http://hub.example/",
            "file:///etc/passwd",
            "ftp://x/",
            "javascript:x",
            "https://hub@x/",
            "https://",
            "/a b",
        ] {
            assert!(to(location).is_err(), "{location}");
        }
        let plain = Address::parse("http://mirror/x").unwrap();
        assert!(plain.join("https://hub.example/").is_ok() && plain.join("http://other/").is_ok());
    }

    #[test]
    fn an_origin_is_scheme_host_and_port() {
        let origin = |text: &str| Address::parse(text).unwrap().origin();
        let hub = origin("https://hub.example");
        for same in ["https://HUB.example/x?y", "https://hub.example:443/"] {
            assert_eq!(origin(same), hub);
        }
        for other in [
            "http://hub.example",
            "https://hub.example:444",
            "https://hub.example.evil",
            "https://sub.hub.example",
        ] {
            assert_ne!(origin(other), hub);
        }
    }

    #[test]
    fn names_are_encoded() {
        assert_eq!(encode("refs/pr/1", false), "refs%2Fpr%2F1");
        assert_eq!(encode("data/a b%#?é.txt", true), "data/a%20b%25%23%3F%C3%A9.txt");
    }
}
