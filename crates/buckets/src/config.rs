//! What is said of a bucket.

use std::path::PathBuf;
use std::time::Duration;

use metrifold_base::Secret;
use metrifold_http::ClientConfig;

use super::url::BucketUrl;

/// How a bucket is reached.
#[derive(Clone, Debug)]
pub struct BucketConfig {
    /// Where it is.
    pub url: BucketUrl,
    /// The URL of the service, where it is not the provider's own.
    pub endpoint: Option<String>,
    /// The region of the bucket, which S3 asks for.
    pub region: Option<String>,
    /// What requests are signed with.
    pub credentials: Credentials,
    /// Longest time for a request, with all attempts at it.
    pub timeout: Duration,
    /// Largest answer that is read.
    pub max_answer: usize,
    /// How connections are made.
    pub client: ClientConfig,
}

/// What requests are signed with.
#[derive(Clone, Debug)]
pub enum Credentials {
    /// What the provider's own tools find: in the environment, or by the machine's identity.
    Ambient,
    /// A name and its secret: of S3 an access key, of Azure an account and its key.
    Key(String, Secret),
    /// An account of Azure whose credentials are ambient.
    Account(String),
    /// A file with the key of a service account of Google.
    File(PathBuf),
}
