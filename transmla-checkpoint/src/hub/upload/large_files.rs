//! Large files: git's batch protocol for them, in one piece or in the parts that the hub asks for.

use std::io::{self, Read};

use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::Target;
use super::local_file::LocalFile;
use crate::hub::address::Address;
use crate::hub::client::{Failure, cut};
use crate::hub::observer::HubEvent;
use crate::hub::options::HubOptions;
use crate::hub::send::Kind;

/// Most parts of a file; the hub's storage takes no more.
const MOST_PARTS: u64 = 10_000;

#[derive(Deserialize)]
struct Batch {
    objects: Vec<Object>,
}

#[derive(Deserialize)]
struct Object {
    oid: String,
    actions: Option<Actions>,
    error: Option<Value>,
}

#[derive(Deserialize)]
struct Actions {
    upload: Option<Action>,
    verify: Option<Action>,
}

#[derive(Deserialize)]
struct Action {
    href: String,
    header: Option<Map<String, Value>>,
}

/// Stores a file's contents, unless they are there; gives whether they were sent.
pub(super) fn store(target: &Target<'_>, file: &LocalFile) -> Result<bool, Failure> {
    let Some(actions) = ask(target, file)? else {
        return Ok(false);
    };
    let Some(upload) = actions.upload else { return Ok(false) };
    target.options.tell(&HubEvent::Sending {
        file: &file.name,
        bytes: file.size,
    });
    let address = target.client.named(&upload.href)?;
    match Parts::of(upload.header.as_ref(), file.size)? {
        None => drop(send(target, file, &address, 0, file.size)?),
        Some(parts) => {
            let tags = parts.send(target, file)?;
            let done = json!({ "oid": file.sha256, "parts": tags });
            target.post(&address, Kind::LargeFiles, &done)?;
        }
    }
    if let Some(verify) = actions.verify {
        let address = target.client.named(&verify.href)?;
        target.post(&address, Kind::Json, &json!({ "oid": file.sha256, "size": file.size }))?;
    }
    target.options.tell(&HubEvent::Finished { file: &file.name });
    Ok(true)
}

/// What is to be done with a file; nothing if its contents are there.
fn ask(target: &Target<'_>, file: &LocalFile) -> Result<Option<Actions>, Failure> {
    let address = target
        .client
        .named(&format!("/{}.git/info/lfs/objects/batch", target.repo))?;
    let question = json!({
        "operation": "upload",
        "transfers": ["basic", "multipart"],
        "objects": [{ "oid": file.sha256, "size": file.size }],
        "hash_algo": "sha256",
        "ref": { "name": target.revision },
    });
    let batch: Batch = target.post(&address, Kind::LargeFiles, &question)?.json()?;
    let mut objects = batch.objects.into_iter();
    let (Some(object), None) = (objects.next(), objects.next()) else {
        return Err(Failure::Refused(
            "the hub answers about other files than it was asked for".into(),
        ));
    };
    if let Some(error) = object.error {
        return Err(Failure::Refused(format!(
            "the hub does not take it: {}",
            cut(&error.to_string())
        )));
    }
    if object.oid != file.sha256 {
        return Err(Failure::Refused(
            "the hub answers about another file than it was asked for".into(),
        ));
    }
    Ok(object.actions)
}

/// The parts that a file is sent in.
struct Parts {
    size: u64,
    addresses: Vec<String>,
}

impl Parts {
    /// As the header of an action has them: `chunk_size`, and an address by each part's number.
    fn of(header: Option<&Map<String, Value>>, length: u64) -> Result<Option<Self>, Failure> {
        let Some((header, size)) = header.and_then(|header| Some((header, header.get("chunk_size")?))) else {
            return Ok(None);
        };
        let bad = || Failure::Refused("the hub asks for parts of a file that do not make it".into());
        let number = size.as_u64().or_else(|| size.as_str()?.parse().ok());
        let size = number.filter(|size| *size > 0).ok_or_else(bad)?;
        let count = length.div_ceil(size);
        if count > MOST_PARTS {
            return Err(bad());
        }
        let mut parts: Vec<(u64, String)> = header
            .iter()
            .filter_map(|(key, address)| Some((key.parse().ok()?, address.as_str()?.to_owned())))
            .collect();
        parts.sort();
        match parts.iter().map(|(number, _)| *number).eq(1..=count) {
            true => Ok(Some(Self {
                size,
                addresses: parts.into_iter().map(|(_, address)| address).collect(),
            })),
            false => Err(bad()),
        }
    }

    /// Sends them one after another; gives their numbers and the tags that they were stored under.
    fn send(&self, target: &Target<'_>, file: &LocalFile) -> Result<Vec<Value>, Failure> {
        let part = |(index, address): (usize, &String)| {
            let from = index as u64 * self.size;
            let length = self.size.min(file.size - from);
            let tag = send(target, file, &target.client.named(address)?, from, length)?;
            let tag = tag.ok_or_else(|| Failure::Refused("a part of a file was stored without an ETag".into()))?;
            Ok(json!({ "partNumber": index + 1, "etag": tag }))
        };
        self.addresses.iter().enumerate().map(part).collect()
    }
}

/// Sends a part of a file, again from its start if that fails for a reason that may pass; gives the tag that it has there.
fn send(
    target: &Target<'_>,
    file: &LocalFile,
    address: &Address,
    from: u64,
    length: u64,
) -> Result<Option<String>, Failure> {
    let retries = target.options.timeouts.retries;
    target.client.patiently(retries, &file.name, &mut || {
        let part = file.part(from, length);
        let part = part.map_err(|error| Failure::Local(format!("it cannot be read: {error}")))?;
        let mut part = Told {
            inner: part,
            position: from,
            options: target.options,
        };
        Ok(target.client.put(address, &mut part, length)?.etag)
    })
}

/// A part of a file that tells how much of it was read.
struct Told<'a, R> {
    inner: R,
    position: u64,
    options: &'a HubOptions,
}

impl<R: Read> Read for Told<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.position += count as u64;
        self.options.tell(&HubEvent::Progress {
            position: self.position,
        });
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_make_the_file_or_are_refused() {
        let parts =
            |header: Value, length| Parts::of(header.as_object(), length).map(|parts| parts.map(|p| p.addresses));
        assert!(matches!(parts(json!({}), 5), Ok(None)));
        let two = json!({ "chunk_size": "3", "2": "b", "00001": "a", "other": "x" });
        assert_eq!(parts(two.clone(), 5).unwrap().unwrap(), ["a", "b"]);
        for (header, length) in [
            (two.clone(), 3),
            (two, 7),
            (json!({ "chunk_size": 0, "1": "a" }), 5),
            (json!({ "chunk_size": "many", "1": "a" }), 5),
            (json!({ "chunk_size": 3, "1": "a", "3": "b" }), 5),
            (json!({ "chunk_size": 1 }), u64::MAX),
        ] {
            assert!(matches!(parts(header, length), Err(Failure::Refused(_))));
        }
    }
}
