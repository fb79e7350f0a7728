//! Sources of a tenant's name.

use std::fmt;

use http::HeaderName;

use metrifold_base::{Problems, keys, words};
use metrifold_codec::Name;
use metrifold_http::form::Form;
use metrifold_model::{Origin, Tenant, tenant_name as name};

use super::queries::endpoint;
use super::{Check, METRIC};

keys! {
    /// An entry of `from`: exactly one key, and `remove` beside `label`.
    #[derive(Debug, Default)]
    pub(super) struct FromConfig {
        /// Parameter of the source's path.
        path: Option<String> = unset("tenant"),
        /// Header of the request.
        header: Option<String> = unset("THANOS-TENANT"),
        /// Parameter of a query's URL. It is removed from the query.
        parameter: Option<String> = unset("tenant_id"),
        /// Label whose value, for each series, is the tenant.
        label: Option<String> = unset("namespace"),
        /// Remove that label from the series whose tenant it determines.
        remove: Option<bool> = unset(true),
        /// The tenant that the caller has authenticated for (`access = "tenants"` at the source).
        caller: Option<bool> = unset(true),
        /// Field of the sender's verified client certificate.
        client_cert: Option<CertificateField> = unset("common_name"),
        /// Fixed name.
        value: Option<String> = unset("anonymous"),
    }
}

words! {
    /// A field of a certificate; the first value counts.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(super) enum CertificateField {
        /// The subject's common name.
        CommonName = "common_name",
        /// The subject's organizational unit.
        OrganizationalUnit = "organizational_unit",
        /// The first alternative name of a DNS host.
        Dns = "dns",
    }
}

/// A validated entry of `from`.
#[derive(Debug)]
pub(super) enum Source {
    Path(String),
    Header(HeaderName),
    Parameter(String),
    Label { name: Name, remove: bool },
    Caller,
    Certificate(CertificateField),
    Value(Tenant),
}

impl FromConfig {
    pub(super) fn compile(&self, path: &str, problems: &mut Problems) -> Option<Source> {
        let given = [
            self.path.is_some(),
            self.header.is_some(),
            self.parameter.is_some(),
            self.label.is_some(),
            self.caller.is_some(),
            self.client_cert.is_some(),
            self.value.is_some(),
        ];
        if given.into_iter().filter(|&given| given).count() != 1 {
            let message = "an entry has exactly one of path, header, parameter, label, caller, client_cert and value";
            problems.at(path, message).help("write one entry per key");
            return None;
        }
        if self.remove.is_some() && self.label.is_none() {
            let message = "remove is only possible together with label";
            problems
                .at(format!("{path}.remove"), message)
                .help("remove the key");
            return None;
        }
        let mut wrong = |key: &str, message: String, help: &str| {
            problems.at(format!("{path}.{key}"), message).help(help);
            None
        };
        if let Some(parameter) = &self.path {
            if parameter.is_empty() {
                return wrong(
                    "path",
                    "name is empty".into(),
                    "name a parameter of the path",
                );
            }
            return Some(Source::Path(parameter.clone()));
        }
        if let Some(header) = &self.header {
            return match HeaderName::from_bytes(header.as_bytes()) {
                Ok(header) => Some(Source::Header(header)),
                Err(_) => wrong(
                    "header",
                    format!("{header:?} is not a header"),
                    "name a header",
                ),
            };
        }
        if let Some(parameter) = &self.parameter {
            return match parameter.is_empty() || endpoint::has_meaning(parameter) {
                false => Some(Source::Parameter(parameter.clone())),
                true => wrong(
                    "parameter",
                    format!("{parameter:?} has another meaning in a query"),
                    "name another parameter",
                ),
            };
        }
        if let Some(label) = &self.label {
            let remove = self.remove.unwrap_or_default();
            if label.is_empty() {
                return wrong("label", "name is empty".into(), "name a label");
            }
            if remove && label == METRIC {
                let message = "a metric's name cannot be removed".to_owned();
                return wrong("remove", message, "remove the key");
            }
            let name = Name::new(label);
            return Some(Source::Label { name, remove });
        }
        if let Some(value) = &self.value {
            return match name::check(value.as_bytes()) {
                Ok(tenant) => Some(Source::Value(tenant.into())),
                Err(reason) => wrong("value", reason, "choose another name"),
            };
        }
        match self.caller {
            Some(true) => return Some(Source::Caller),
            Some(false) => return wrong("caller", "can only be true".into(), "remove the entry"),
            None => {}
        }
        self.client_cert.map(Source::Certificate)
    }
}

impl Source {
    /// The header that names the tenant, if one does.
    pub(super) fn header(&self) -> Option<&HeaderName> {
        match self {
            Self::Header(header) => Some(header),
            _ => None,
        }
    }

    /// The parameter that names the tenant, if one does.
    pub(super) fn parameter(&self) -> Option<&str> {
        match self {
            Self::Parameter(name) => Some(name),
            _ => None,
        }
    }

    /// The name that this source yields for a whole batch or query, if any. `url` has the parameters
    /// of a query's URL.
    pub(super) fn read(
        &self,
        origin: &Origin,
        url: &Form,
        check: Check<'_>,
    ) -> Result<Option<Tenant>, String> {
        let certificate = origin.caller.certificate.as_deref();
        let found: &[u8] = match self {
            Self::Path(parameter) => origin.param(parameter).unwrap_or_default().as_bytes(),
            Self::Header(header) => {
                let mut values = origin.headers.get_all(header).iter();
                let first = values.next().map_or(&b""[..], |value| value.as_bytes());
                // A proxy in front may have checked another value than the one used here.
                if values.next().is_some() {
                    return Err("it is given more than once".into());
                }
                first
            }
            Self::Parameter(parameter) => {
                let mut values = url.values(parameter);
                let first = values.next().unwrap_or_default();
                if values.next().is_some() {
                    return Err("it is given more than once".into());
                }
                first.as_bytes()
            }
            Self::Certificate(field) => {
                let found = certificate.and_then(|certificate| match field {
                    CertificateField::CommonName => certificate.common_name.as_deref(),
                    CertificateField::OrganizationalUnit => {
                        certificate.organizational_units.first().map(String::as_str)
                    }
                    CertificateField::Dns => certificate.dns_names().next(),
                });
                found.unwrap_or_default().as_bytes()
            }
            Self::Value(tenant) => return Ok(Some(tenant.clone())),
            Self::Caller => {
                let tenants = origin.caller.tenants();
                return match tenants {
                    [] => Ok(None),
                    [only] => Ok(Some(only.tenant.clone())),
                    several => {
                        let names: Vec<_> = several.iter().map(|it| &*it.tenant).collect();
                        check(names.join("|").as_bytes()).map(Some)
                    }
                };
            }
            Self::Label { .. } => b"", // read for each series
        };
        if found.is_empty() {
            return Ok(None);
        }
        check(found).map(Some)
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Path(parameter) => write!(f, "path parameter {parameter}"),
            Self::Header(header) => write!(f, "header {header}"),
            Self::Parameter(parameter) => write!(f, "parameter {parameter} of the url"),
            Self::Label { name, .. } => write!(f, "label {}", name.as_str()),
            Self::Certificate(field) => f.write_str(match field {
                CertificateField::CommonName => "common name of the client certificate",
                CertificateField::OrganizationalUnit => {
                    "organizational unit of the client certificate"
                }
                CertificateField::Dns => "dns name of the client certificate",
            }),
            Self::Caller => f.write_str("the caller's proof"),
            Self::Value(tenant) => write!(f, "value {tenant}"),
        }
    }
}
