//! Settings of a bucket.

use std::path::PathBuf;
use std::time::Duration;

use metrifold_base::Secret;
use metrifold_http::ClientConfig;

use super::url::BucketUrl;

/// Location and connection settings of a bucket.
#[derive(Clone, Debug)]
pub struct BucketConfig {
    /// Provider, bucket and folder.
    pub url: BucketUrl,
    /// URL of the service, if it is not the provider's own.
    pub endpoint: Option<String>,
    /// Region of an S3 bucket; `None` takes the environment's.
    pub region: Option<String>,
    /// Credentials that sign the requests.
    pub credentials: Credentials,
    /// Maximum time for a request, including retries.
    pub timeout: Duration,
    /// Whether the service honours the conditions of writes. If not, no other process may write.
    pub conditional_writes: bool,
    /// Maximum size of an answer, in bytes.
    pub max_answer: usize,
    /// Settings of the HTTP client.
    pub client: ClientConfig,
}

/// Credentials that sign the requests.
#[derive(Clone, Debug)]
pub enum Credentials {
    /// Those that the provider's own tools find, in the environment or by the machine's identity.
    Ambient,
    /// An ID and its secret: an S3 access key, or an Azure account and its key.
    Key(String, Secret),
    /// An Azure account with ambient credentials.
    Account(String),
    /// A file with the key of a Google service account.
    File(PathBuf),
}
