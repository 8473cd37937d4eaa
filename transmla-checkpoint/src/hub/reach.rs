//! Whether the hub answers.

use super::client::{Client, Failure};
use super::options::HubOptions;
use crate::error::CheckpointError;

/// Asks the hub whether it is there and, if there is a token, whether it knows that; gives the address that was asked.
///
/// # Errors
/// [`CheckpointError::Unreachable`] if the hub does not answer within the timeouts, or refuses the token.
pub fn reach(options: &HubOptions) -> Result<String, CheckpointError> {
    let fail = |address: &str, problem: String| CheckpointError::Unreachable {
        address: address.to_owned(),
        problem,
    };
    let client = Client::new(options).map_err(|failure| fail("the hub", failure.explain("", false)))?;
    let address = client.at("").trim_end_matches('/').to_owned();
    let path = if client.has_token() { "api/whoami-v2" } else { "" };
    match client.get(&client.at(path), 0).map(drop) {
        Ok(()) => Ok(address),
        Err(Failure::Status(status @ (401 | 403), _)) if client.has_token() => Err(fail(
            &address,
            format!("it does not accept the token (status {status}): make a new one, or use none"),
        )),
        // It is there, and what is asked of it later is something else.
        Err(Failure::Status(status, _)) if status < 500 => Ok(address),
        Err(Failure::Network(problem)) => Err(fail(&address, problem)),
        Err(failure) => Err(fail(&address, failure.explain("", client.has_token()))),
    }
}
