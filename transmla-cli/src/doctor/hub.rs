//! The hub: whether it is switched off, whether there is a token, and, if asked, whether it answers.

use std::time::Duration;

use transmla_core::hub::{HubOptions, HubTimeouts, reach};

use super::finding::Finding;
use crate::environment;
use crate::printer::Printer;

/// How long the hub is waited for.
const PATIENCE: Duration = Duration::from_secs(5);

/// The token and the hub.
pub fn check(online: bool) -> Vec<Finding> {
    let options = HubOptions {
        timeouts: HubTimeouts {
            connect: PATIENCE,
            answer: PATIENCE,
            retries: 0,
            ..HubTimeouts::default()
        },
        ..environment::hub_options(&Printer::silent())
    };
    vec![token(&options), hub(&options, online)]
}

fn token(options: &HubOptions) -> Finding {
    match &options.token {
        Some(_) => Finding::ok("token", "there is one; it is not shown"),
        None => Finding::ok("token", "none; gated and private models need one (HF_TOKEN)"),
    }
}

fn hub(options: &HubOptions, online: bool) -> Finding {
    const NAME: &str = "hub";
    if options.offline {
        let found = "switched off (HF_HUB_OFFLINE): what is in the cache is used";
        return match online {
            true => Finding::warn(NAME, found, "unset HF_HUB_OFFLINE to ask it"),
            false => Finding::ok(NAME, found),
        };
    }
    if !online {
        return Finding::ok(NAME, "not asked; `transmla doctor --online` asks it");
    }
    match reach(options) {
        Ok(address) => Finding::ok(NAME, format!("{address} answers")),
        Err(error) => Finding::fail(
            NAME,
            error.to_string(),
            "check the network, HF_ENDPOINT, HTTPS_PROXY and HF_TOKEN; without a hub, give models and texts as local folders",
        ),
    }
}
