//! The rulers of the configuration.

use std::collections::BTreeSet;
use std::path::PathBuf;

use metrifold_base::{BuildError, Endpoint, Problems, keys};
use metrifold_engine::component::Resource;

use super::client::RulerClient;
use super::install::Installer;
use super::place::Place;
use super::push::Pusher;
use super::way::Way;

keys! {
    /// A ruler, with the directory or the file that it reads, or the URL to which rules are pushed.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct RulerKeys {
        /// URL of the ruler, with the path in front of `/-/reload` and `/api/v1/rules` if there is one.
        pub(super) url: Endpoint = required("http://127.0.0.1:9090"),
        /// Directory that this ruler reads, as `DIRECTORY/*.yaml`. It must not exist, must be empty, or must have been created by this sink.
        directory: Option<PathBuf> = suggested("/var/lib/ruler/rules"),
        /// File that this ruler reads, with the groups of all tenants, instead of `directory`. It must not exist, must be empty, or must have been written by this sink.
        file: Option<PathBuf> = unset("/var/lib/ruler/rules.yaml"),
        /// URL of the configuration API of a Mimir or Cortex ruler, to which the rules of each tenant are pushed, instead of `directory`. Rules in namespaces of this sink that only the ruler has are removed.
        push_url: Option<Endpoint> = unset("http://mimir:8080/prometheus/config/v1/rules"),
    }
}

/// The problem of a ruler that has several of these keys, or none.
const NEEDS: &str = "needs exactly one of directory, file and push_url";

impl RulerKeys {
    /// The folder or the file that the sink writes; `None` if rules are pushed.
    pub(super) fn resource(&self) -> Option<Resource> {
        let folder = self.directory.clone().map(Resource::Folder);
        folder.or_else(|| self.file.clone().map(Resource::File))
    }

    /// How the ruler gets its rules, of which those of `max_pushes` tenants may be pushed at once, into
    /// namespaces that begin with a prefix.
    pub(super) fn way(
        &self,
        client: RulerClient,
        max_pushes: usize,
        prefix: &str,
    ) -> Result<Way, BuildError> {
        let place = match (&self.directory, &self.file, &self.push_url) {
            (Some(directory), None, None) => Place::Folder(directory.clone()),
            (None, Some(file), None) => Place::File(file.clone()),
            (None, None, Some(url)) => {
                let pusher = Pusher::new(client, url.uri().clone(), prefix, max_pushes);
                return Ok(Way::Push(pusher));
            }
            _ => return Err(BuildError::new("ruler", NEEDS)),
        };
        Ok(Way::Files(Installer::new(place, client)))
    }
}

/// Reports problems of the rulers, each alone and between them.
pub(super) fn validate(rulers: &[RulerKeys], problems: &mut Problems) {
    if rulers.is_empty() {
        problems.at("rulers", "must name at least one ruler");
    }
    let (mut urls, mut paths, mut pushed) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    for (place, ruler) in rulers.iter().enumerate() {
        let key = |name: &str| format!("rulers[{place}].{name}");
        if ruler.url.uri().query().is_some() {
            problems.at(key("url"), "must have no query string");
        }
        if !urls.insert(ruler.url.to_string()) {
            problems.at(key("url"), "is the URL of another ruler");
        }
        let (directory, file, push) = (&ruler.directory, &ruler.file, &ruler.push_url);
        let ways = [directory.is_some(), file.is_some(), push.is_some()];
        if ways.into_iter().filter(|is_given| *is_given).count() != 1 {
            problems.at(format!("rulers[{place}]"), NEEDS);
        }
        if let Some(push) = push {
            if push.uri().query().is_some() {
                problems.at(key("push_url"), "must have no query string");
            }
            // Each of them removes the tenants of the other.
            if !pushed.insert(push.to_string()) {
                problems.at(key("push_url"), "is the URL of another ruler");
            }
        }
        if let Some(directory) = directory {
            if directory.file_name().is_none() {
                problems.at(key("directory"), "must end in the name of a folder");
            }
            if !paths.insert(directory) {
                problems.at(key("directory"), "is the path of another ruler");
            }
        }
        if let Some(file) = file {
            let is_folder = file.as_os_str().as_encoded_bytes().ends_with(b"/");
            if is_folder || file.file_name().is_none() {
                problems.at(key("file"), "must end in the name of a file");
            }
            if !paths.insert(file) {
                problems.at(key("file"), "is the path of another ruler");
            }
            // A folder of rules is replaced as a whole.
            let mut folders = rulers.iter().filter_map(|ruler| ruler.directory.as_ref());
            if folders.any(|folder| file != folder && file.starts_with(folder)) {
                problems.at(key("file"), "lies in the directory of a ruler");
            }
        }
    }
}
