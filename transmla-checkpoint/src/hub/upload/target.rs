//! Where files are uploaded to.

use crate::hub::client::Client;
use crate::hub::options::HubOptions;

/// A repository, a branch, and how they are reached.
pub(super) struct Target<'a> {
    pub client: &'a Client<'a>,
    pub options: &'a HubOptions,
    pub repo: &'a str,
    pub revision: &'a str,
}
