//! The cryptography of our connections: ring's, as rustls has it, but for one limit. It knows no certificate and no key.

use std::sync::{Arc, LazyLock};

use rustls::{
    CipherSuiteCommon, SupportedCipherSuite, Tls12CipherSuite,
    crypto::{CryptoProvider, ring},
};

static PROVIDER: LazyLock<Arc<CryptoProvider>> = LazyLock::new(|| {
    let ring = ring::default_provider();
    let cipher_suites = ring.cipher_suites.iter().map(|suite| without_limit(*suite)).collect();
    Arc::new(CryptoProvider { cipher_suites, ..ring })
});

/// What client and server connections are encrypted with.
pub fn provider() -> Arc<CryptoProvider> {
    Arc::clone(&PROVIDER)
}

/// rustls ends a connection of TLS 1.2 after 2²⁴ records of AES-GCM (draft-irtf-cfrg-aead-limits, 5.1.1), and what is
/// written then is dropped and told as written: an answer that its client never gets, a request that its worker never
/// gets. A busy session sends that many in hours. OpenSSL, and so PostgreSQL, has no such limit. In TLS 1.3 the keys are
/// renewed instead.
fn without_limit(suite: SupportedCipherSuite) -> SupportedCipherSuite {
    let SupportedCipherSuite::Tls12(limited) = suite else { return suite };
    let &Tls12CipherSuite { ref common, prf_provider, kx, sign, aead_alg } = limited;
    let CipherSuiteCommon { suite, hash_provider, .. } = *common;
    let common = CipherSuiteCommon { suite, hash_provider, confidentiality_limit: u64::MAX };
    // Once for the process: rustls wants its suites to live for ever.
    SupportedCipherSuite::Tls12(Box::leak(Box::new(Tls12CipherSuite { common, prf_provider, kx, sign, aead_alg })))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_connection_of_tls_1_2_ends_after_so_many_records() {
        let provider = provider();
        let suites = provider.cipher_suites.iter();
        let limits: Vec<u64> = suites
            .filter_map(|suite| match suite {
                SupportedCipherSuite::Tls12(suite) => Some(suite.common.confidentiality_limit),
                SupportedCipherSuite::Tls13(_) => None,
            })
            .collect();
        assert_eq!(limits, [u64::MAX; 6]);
    }

    #[test]
    fn there_are_as_many_suites_as_rustls_has_in_its_order() {
        let names = |provider: &CryptoProvider| {
            provider.cipher_suites.iter().map(SupportedCipherSuite::suite).collect::<Vec<_>>()
        };
        assert_eq!(names(&provider()), names(&ring::default_provider()));
    }
}
