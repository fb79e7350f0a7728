//! Keys of a bucket of S3, Google Cloud Storage or Azure.

use std::path::{Path, PathBuf};

use metrifold_base::{BuildError, Endpoint, Period, Problems, Secret, keys};
use metrifold_http::ClientTls;
use metrifold_http::auth::ProxyKeys;
use metrifold_rules::store::Objects;

keys! {
    /// A bucket that holds a store of rules.
    #[derive(Clone, Debug)]
    #[cfg_attr(
        not(feature = "object_store"),
        allow(dead_code, reason = "a build without the feature refuses the table")
    )]
    pub struct BucketKeys {
        /// Bucket, and a folder in it unless the whole bucket is used: `s3://BUCKET/FOLDER`, `gs://BUCKET/FOLDER` (Google Cloud Storage) or `az://CONTAINER/FOLDER` (Azure).
        url: String = required("s3://rules"),
        /// URL of the service, if it is not the provider's own, such as a MinIO server.
        endpoint: Option<Endpoint> = unset("http://minio:9000"),
        /// Region of an S3 bucket; by default, that of the environment, or `us-east-1`.
        region: Option<String> = unset("eu-central-1"),
        /// S3 access key ID. Without credentials, for every provider, those of the environment or of the pod's or machine's identity are used, as by the provider's own tools.
        access_key_id: Option<String> = unset("metrifold"),
        /// S3 secret access key. With `access_key_id`, either this or `secret_access_key_file` must be set.
        secret_access_key: Option<Secret> = unset("${SECRET_ACCESS_KEY}"),
        /// File with the S3 secret access key. Trailing white space is ignored.
        secret_access_key_file: Option<PathBuf> = unset("/etc/metrifold/secret-access-key"),
        /// Azure storage account.
        account: Option<String> = unset("platform"),
        /// Key of the Azure storage account.
        account_key: Option<Secret> = unset("${ACCOUNT_KEY}"),
        /// File with the key of the Azure storage account. Trailing white space is ignored.
        account_key_file: Option<PathBuf> = unset("/etc/metrifold/account-key"),
        /// JSON file with the key of a Google service account.
        service_account_file: Option<PathBuf> = unset("/etc/metrifold/service-account.json"),
        /// TLS settings for the connection to the service.
        tls: ClientTls = table,
        proxy: ProxyKeys = include,
        /// Whether the service honours conditions of writes (`If-Match`, `If-None-Match`), which decide races among all processes that write. With `false`, races are decided within this process: no other process may write.
        conditional_writes: bool = default(true),
        /// Maximum time to establish a connection.
        connect_timeout: Period = default("5s"),
        /// Maximum time for a request, including retries.
        timeout: Period = default("30s"),
    }
}

impl BucketKeys {
    /// Files that the keys name.
    pub(crate) fn files(&self) -> impl Iterator<Item = &Path> {
        let files = [
            &self.secret_access_key_file,
            &self.account_key_file,
            &self.service_account_file,
        ];
        let files = files.into_iter().flatten().map(PathBuf::as_path);
        files.chain(self.tls.files()).chain(self.proxy.files())
    }
}

#[cfg(not(feature = "object_store"))]
impl BucketKeys {
    /// Reports that this build has no support for buckets.
    pub(crate) fn validate(&self, key: &str, problems: &mut Problems) {
        problems
            .at(key, "this build has no support for buckets")
            .help("build it with the feature `object_store`, or use a directory");
    }

    /// Fails, since this build has no support for buckets.
    pub(crate) fn open(&self, _max_answer: usize) -> Result<Box<dyn Objects>, BuildError> {
        Err(BuildError::new(
            "bucket",
            "this build has no support for buckets",
        ))
    }
}

#[cfg(feature = "object_store")]
mod known {
    use std::time::Duration;

    use metrifold_buckets::{Bucket, BucketConfig, BucketUrl, Credentials, Provider};
    use metrifold_http::ClientConfig;
    use metrifold_http::auth::SecretFrom;
    use tokio::runtime::Handle;

    use super::*;

    /// Idle connections that are kept: as many as objects are read at once.
    const CONNECTIONS: usize = 32;
    /// Longest life of a connection; older ones get no further requests.
    const MAX_AGE: Duration = Duration::from_secs(300);
    /// Keys that only one provider has.
    const OF_ONE: [(&str, Provider); 7] = [
        ("region", Provider::S3),
        ("access_key_id", Provider::S3),
        ("secret_access_key", Provider::S3),
        ("secret_access_key_file", Provider::S3),
        ("account", Provider::Azure),
        ("account_key", Provider::Azure),
        ("account_key_file", Provider::Azure),
    ];

    impl BucketKeys {
        /// Reports problems at the keys below `key`.
        pub(crate) fn validate(&self, key: &str, problems: &mut Problems) {
            let provider = match self.url.parse::<BucketUrl>() {
                Ok(url) => Some(url.provider()),
                Err(reason) => {
                    problems.at(format!("{key}.url"), reason);
                    None
                }
            };
            let others = OF_ONE
                .iter()
                .filter(|(_, of)| provider.is_some_and(|it| it != *of));
            for (name, of) in others.filter(|(name, _)| self.is_set(name)) {
                let what = format!("is a key of {of}, but the bucket is of another provider");
                problems.at(format!("{key}.{name}"), what);
            }
            if self.service_account_file.is_some()
                && provider.is_some_and(|it| it != Provider::Google)
            {
                let what = format!(
                    "is a key of {}, but the bucket is of another provider",
                    Provider::Google
                );
                problems.at(format!("{key}.service_account_file"), what);
            }
            let endpoint = self.endpoint.as_ref();
            if endpoint.is_some_and(|endpoint| endpoint.uri().query().is_some()) {
                problems.at(format!("{key}.endpoint"), "must have no query string");
            }
            for (name, id, secret, keys) in [
                (
                    "access_key_id",
                    &self.access_key_id,
                    self.access_key_secret(),
                    ["secret_access_key", "secret_access_key_file"],
                ),
                (
                    "account",
                    &self.account,
                    self.account_secret(),
                    ["account_key", "account_key_file"],
                ),
            ] {
                let is_secret = keys.iter().any(|key| self.is_set(key));
                // An Azure account may use an identity instead of a secret.
                if is_secret || (id.is_some() && name == "access_key_id") {
                    secret.validate(key, keys, problems);
                }
                if is_secret && id.is_none() {
                    let what = format!("needs {name}");
                    let set = keys.iter().find(|key| self.is_set(key));
                    problems.at(format!("{key}.{}", set.unwrap_or(&name)), what);
                }
            }
            self.tls.validate(&format!("{key}.tls"), problems);
            self.proxy.validate(&format!("{key}."), problems);
            for (name, period) in [
                ("connect_timeout", self.connect_timeout),
                ("timeout", self.timeout),
            ] {
                if period < Period::millis(100) {
                    problems.at(format!("{key}.{name}"), "must be at least 100ms");
                }
            }
        }

        fn is_set(&self, name: &str) -> bool {
            match name {
                "region" => self.region.is_some(),
                "access_key_id" => self.access_key_id.is_some(),
                "secret_access_key" => self.secret_access_key.is_some(),
                "secret_access_key_file" => self.secret_access_key_file.is_some(),
                "account" => self.account.is_some(),
                "account_key" => self.account_key.is_some(),
                _ => self.account_key_file.is_some(),
            }
        }

        fn access_key_secret(&self) -> SecretFrom<'_> {
            let file = self.secret_access_key_file.as_deref();
            SecretFrom::new(self.secret_access_key.as_ref(), file)
        }

        fn account_secret(&self) -> SecretFrom<'_> {
            SecretFrom::new(self.account_key.as_ref(), self.account_key_file.as_deref())
        }

        /// Opens the bucket's objects, without a request to it.
        ///
        /// # Errors
        ///
        /// Fails if a secret cannot be read.
        pub(crate) fn open(&self, max_answer: usize) -> Result<Box<dyn Objects>, BuildError> {
            let failed = |reason| BuildError::new("bucket", reason);
            let config = BucketConfig {
                url: self.url.parse().map_err(failed)?,
                endpoint: self
                    .endpoint
                    .as_ref()
                    .map(|endpoint| endpoint.uri().to_string()),
                region: self.region.clone(),
                credentials: self.credentials().map_err(failed)?,
                timeout: self.timeout.0,
                conditional_writes: self.conditional_writes,
                max_answer,
                client: ClientConfig {
                    tls: self.tls.clone(),
                    proxy_url: self.proxy.proxy_url.clone(),
                    proxy_basic_auth: self.proxy.proxy_basic_auth.clone(),
                    connections: CONNECTIONS,
                    connect_timeout: self.connect_timeout.0,
                    max_age: MAX_AGE,
                },
            };
            let runtime = Handle::try_current().map_err(|error| failed(error.to_string()))?;
            Ok(Box::new(Bucket::open(&config, runtime).map_err(failed)?))
        }

        fn credentials(&self) -> Result<Credentials, String> {
            let has_key = self.account_key.is_some() || self.account_key_file.is_some();
            Ok(
                match (
                    &self.access_key_id,
                    &self.account,
                    &self.service_account_file,
                ) {
                    (Some(id), ..) => {
                        Credentials::Key(id.clone(), self.access_key_secret().read()?)
                    }
                    (_, Some(account), _) if has_key => {
                        Credentials::Key(account.clone(), self.account_secret().read()?)
                    }
                    (_, Some(account), _) => Credentials::Account(account.clone()),
                    (.., Some(file)) => Credentials::File(file.clone()),
                    _ => Credentials::Ambient,
                },
            )
        }
    }
}
