//! Encrypted values in a configuration of Spring: `{cipher}` and hexadecimal digits.

use aws_lc_rs::cipher::{
    AES_256, AES_CBC_IV_LEN, DecryptionContext, PaddedBlockDecryptingKey, UnboundCipherKey,
};
use aws_lc_rs::iv::FixedLength;
use aws_lc_rs::pbkdf2::{self, PBKDF2_HMAC_SHA1};

use std::num::NonZeroU32;

use metrifold_base::Secret;

/// Spring's default salt.
const SALT: [u8; 4] = [0xde, 0xad, 0xbe, 0xef];
/// Rounds of the key derivation.
const ROUNDS: NonZeroU32 = NonZeroU32::new(1024).unwrap();
const WRONG: &str = "cannot be decrypted: is ENCRYPT_KEY the key that it was encrypted with?";

/// Decrypts hexadecimal digits: an initialization vector and a ciphertext of AES-256 in CBC mode,
/// with a key derived from `key`.
///
/// # Errors
///
/// Fails when the text is not hexadecimal, or the key is wrong.
pub(crate) fn decrypt(digits: &str, key: &str) -> Result<Secret, String> {
    let bytes = digits.as_bytes().chunks(2).map(|pair| {
        let pair = std::str::from_utf8(pair)
            .ok()
            .filter(|pair| pair.len() == 2);
        u8::from_str_radix(pair?, 16).ok()
    });
    let bytes: Option<Vec<u8>> = bytes.collect();
    let bytes = bytes.ok_or("is not encrypted as Promregator expects: it is not hexadecimal")?;
    let (vector, text) = bytes.split_at_checked(AES_CBC_IV_LEN).ok_or(WRONG)?;
    let mut derived = [0; 32];
    pbkdf2::derive(
        PBKDF2_HMAC_SHA1,
        ROUNDS,
        &SALT,
        key.as_bytes(),
        &mut derived,
    );
    let wrong = |_| WRONG.to_owned();
    let key = UnboundCipherKey::new(&AES_256, &derived).map_err(wrong)?;
    let key = PaddedBlockDecryptingKey::cbc_pkcs7(key).map_err(wrong)?;
    let vector = FixedLength::<AES_CBC_IV_LEN>::try_from(vector).map_err(wrong)?;
    let mut text = text.to_vec();
    let plain = key
        .decrypt(&mut text, DecryptionContext::Iv128(vector))
        .map_err(wrong)?;
    let plain = std::str::from_utf8(plain).map_err(|_| WRONG)?;
    Ok(Secret::new(plain))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIGITS: &str = "d93dd725143e187804e4105a681706c1185c58f92086bf55aa830e61c0527060";

    #[test]
    fn what_promregator_decrypts_is_decrypted() {
        let plain = decrypt(DIGITS, "mySecretKey").unwrap();
        assert_eq!(plain.expose(), "mysecret");
    }

    #[test]
    fn another_key_and_what_is_no_cipher_are_refused() {
        for (digits, key) in [
            (DIGITS, "other"),
            (&DIGITS[..63], "mySecretKey"),
            (&DIGITS[..32], "mySecretKey"),
            (&DIGITS[..30], "mySecretKey"),
            ("", "mySecretKey"),
            ("zz", "mySecretKey"),
            ("\u{e4}\u{e4}\u{e4}", "mySecretKey"),
        ] {
            assert!(decrypt(digits, key).is_err(), "{digits}");
        }
    }
}
