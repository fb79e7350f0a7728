//! The rules for names of tenants.

/// The longest name, in bytes, as in Mimir.
const MAX_LEN: usize = 150;

/// Checks a name: 1 to 150 letters, digits and `!_.*'()-`, but neither `.` nor `..`, which have a
/// meaning in paths. Thanos and Mimir accept exactly these.
///
/// # Errors
///
/// Fails with the reason for any other name.
pub fn check(name: &[u8]) -> Result<&str, String> {
    let valid = |b: &u8| b.is_ascii_alphanumeric() || b"!_.*'()-".contains(b);
    let text = String::from_utf8_lossy(&name[..name.len().min(MAX_LEN)]);
    match std::str::from_utf8(name) {
        _ if name.len() > MAX_LEN => Err(format!(
            "tenant name {text:?}… is longer than {MAX_LEN} bytes"
        )),
        Ok("") => Err("tenant name is empty".into()),
        Ok("." | "..") => Err(format!("{text:?} is not a tenant name")),
        Ok(name) if name.bytes().all(|b| valid(&b)) => Ok(name),
        _ => Err(format!(
            "{text:?} is not a tenant name: only letters, digits and !_.*'()- are allowed"
        )),
    }
}
