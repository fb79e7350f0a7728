//! URLs of buckets: `s3://bucket/folder`, `gs://bucket/folder`, `az://container/folder`.

use std::fmt;
use std::str::FromStr;

/// Provider of a bucket's service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Provider {
    /// Amazon S3, or a service with the same API.
    S3,
    /// Google Cloud Storage.
    Google,
    /// Azure Blob Storage.
    Azure,
}

impl Provider {
    const ALL: [(Self, &'static str); 3] =
        [(Self::S3, "s3"), (Self::Google, "gs"), (Self::Azure, "az")];
}

impl fmt::Display for Provider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::S3 => "S3",
            Self::Google => "Google Cloud Storage",
            Self::Azure => "Azure",
        })
    }
}

/// URL of a bucket, or of a folder in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BucketUrl {
    provider: Provider,
    bucket: String,
    /// Empty, or a folder with a trailing slash.
    prefix: String,
}

impl BucketUrl {
    /// Provider of the service.
    pub fn provider(&self) -> Provider {
        self.provider
    }

    /// Name of the bucket; with Azure, of the container.
    pub fn bucket(&self) -> &str {
        &self.bucket
    }

    /// Prefix of every key: empty, or a folder with a trailing slash.
    pub fn prefix(&self) -> &str {
        &self.prefix
    }
}

impl FromStr for BucketUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        const FORMS: &str =
            "write s3://BUCKET, gs://BUCKET or az://CONTAINER, with a folder behind it if you like";
        let (scheme, rest) = text.split_once("://").ok_or(FORMS)?;
        let provider = Provider::ALL.into_iter().find(|(_, name)| *name == scheme);
        let (provider, _) = provider.ok_or(FORMS)?;
        let (bucket, folder) = rest.split_once('/').unwrap_or((rest, ""));
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
        if bucket.is_empty() || !bucket.bytes().all(plain) {
            return Err(format!("{bucket:?} is not the name of a bucket: {FORMS}"));
        }
        let folder = folder.strip_suffix('/').unwrap_or(folder);
        let parts = folder.split('/');
        let valid = |part: &str| {
            let dots = part.bytes().all(|byte| byte == b'.');
            !dots
                && part
                    .bytes()
                    .all(|byte| plain(byte) || b"!*'()=".contains(&byte))
        };
        if !folder.is_empty() && !parts.into_iter().all(valid) {
            return Err(
                "the folder behind the bucket has a part that is empty or no plain name".into(),
            );
        }
        let prefix = match folder {
            "" => String::new(),
            folder => format!("{folder}/"),
        };
        Ok(Self {
            provider,
            bucket: bucket.to_owned(),
            prefix,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_names_a_bucket_and_a_folder_in_it() {
        let read = |text: &str| text.parse::<BucketUrl>();
        let plain = read("s3://rules").unwrap();
        assert_eq!(
            (plain.provider(), plain.bucket(), plain.prefix()),
            (Provider::S3, "rules", "")
        );
        for (text, prefix) in [
            ("gs://b/", ""),
            ("gs://b/x", "x/"),
            ("gs://b/x/y=1/", "x/y=1/"),
        ] {
            assert_eq!(read(text).unwrap().prefix(), prefix, "{text}");
        }
        for wrong in [
            "rules",
            "s3:rules",
            "ftp://rules",
            "s3://",
            "s3:///x",
            "s3://a b",
            "s3://a/../b",
            "s3://a//b",
            "s3://a/b?c=d",
            "s3://user@a",
        ] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }
}
