//! `[publish.NAME]`.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use metrifold_base::{BuildError, Problems, keys};
use metrifold_discovery::Format;
use metrifold_expr::relabel::{Program, RuleConfig, Validation};
use metrifold_http::{Access, Doors, Listen, Methods, Permission, ServerKeys};

use crate::relabel::TargetRules;

keys! {
    /// `[publish.NAME]`: targets for programs that read them in the formats of Prometheus.
    #[derive(Clone, Debug)]
    pub struct PublishConfig {
        /// Name of the provider whose targets are published, one under `[discovery.NAME]`.
        pub discovery: String = required("instances"),
        /// Relabel rules for the targets, with the keys of Prometheus' `relabel_configs`. A target without `__address__` is omitted.
        relabel: Vec<RuleConfig> = unset([{ regex = "__meta_(.*)", action = "labelmap" }]),
        /// File to write. It is replaced atomically, and only when its content changes. Its directory must exist.
        pub file: Option<PathBuf> = suggested("/etc/prometheus/targets.json"),
        /// Format of the file: `file_sd` (Prometheus' list of target groups in JSON) or `lines` (one address per line).
        pub format: Format = default("file_sd"),
        /// HTTP endpoint that serves the list to `http_sd_configs`.
        pub http_sd: Option<HttpSdKeys> = optional,
    }
}

keys! {
    /// HTTP endpoint that serves a list of targets.
    #[derive(Clone, Debug)]
    pub struct HttpSdKeys {
        server: ServerKeys = include,
        /// URL path of the list.
        path: String = required("/targets"),
    }
}

impl PublishConfig {
    /// Files that the configuration names for reading.
    pub fn files(&self) -> Vec<&Path> {
        let http = self.http_sd.iter();
        http.flat_map(|http| http.server.files()).collect()
    }

    /// Address and path of the HTTP list, if it is served.
    pub fn listen(&self) -> Option<Listen> {
        self.http_sd.as_ref().map(HttpSdKeys::listen)
    }

    /// Reports every problem that deserialization cannot see.
    pub fn validate(&self, problems: &mut Problems) {
        Program::compile(&self.relabel, Validation::Utf8, "relabel", problems);
        if self.file.is_none() && self.http_sd.is_none() {
            let problem = problems.at("", "it publishes nothing");
            problem.help("add file = \"PATH\", or http_sd = { ... }");
        }
        if self
            .file
            .as_ref()
            .is_some_and(|file| file.file_name().is_none())
        {
            problems.at("file", "is not the path of a file");
        }
        if let Some(http) = &self.http_sd {
            if http.path.contains(['{', '}']) {
                problems.at("http_sd.path", "must be a fixed path");
                return;
            }
            problems.within("http_sd", |inner| http.server.validate(&http.path, inner));
        }
    }

    pub(super) fn rules(&self) -> Result<TargetRules, BuildError> {
        let mut problems = Problems::new(true);
        let program = Program::compile(&self.relabel, Validation::Utf8, "relabel", &mut problems);
        program.map(TargetRules::new).ok_or_else(|| {
            let reasons = problems.into_list().into_iter();
            let reasons: Vec<_> = reasons.map(|problem| problem.message).collect();
            BuildError::new("relabel", reasons.join("; "))
        })
    }
}

impl HttpSdKeys {
    pub(super) fn listen(&self) -> Listen {
        self.server.listen(&self.path, Methods::GET)
    }

    pub(super) fn access(&self, doors: &dyn Doors) -> Result<Arc<dyn Access>, BuildError> {
        // Targets belong to no tenant.
        self.server.access(doors, |_| Permission::Admin)
    }

    /// Address and path of the list, for the status page.
    pub(super) fn shown(&self) -> String {
        let listen = self.listen();
        format!("{}{}", listen.address, listen.path)
    }
}
