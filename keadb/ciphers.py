"""What TLS may agree on, the same on every hop: version 1.2 or 1.3, forward secrecy, authenticated encryption.

Stated wherever a program takes it, so that no default of a distribution decides. The lists are for TLS 1.2; all
suites of 1.3 are as good. The site's keys are ECDSA, so the RSA suites that the lists also match are never used.
"""

MINIMUM = "TLSv1.2"
"""As OpenSSL, PostgreSQL and HAProxy write it."""
OPENSSL = "ECDHE+AESGCM:ECDHE+CHACHA20"
"""For what is built on OpenSSL: PostgreSQL, PgBouncer, HAProxy, Patroni."""
ETCD_MINIMUM = "TLS1.2"
ETCD = (
    # Go's HTTP/2 refuses to serve without this one.
    "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256",
    "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384",
    "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256",
)
