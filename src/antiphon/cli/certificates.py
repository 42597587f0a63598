"""Whether a certificate and its key can be served, asked before anything starts. Knows nothing of servers."""

from __future__ import annotations

import ssl

from .problem import Problem


def check_certificate(certificate: str, key: str | None, password: str | None) -> None:
    """Raise `Problem` for files that are no certificate and key in PEM, or do not belong together."""
    asked = False

    def ask() -> str:
        nonlocal asked
        asked = True
        return password or "\0"  # an empty answer would make OpenSSL ask on the terminal

    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key, ask)
    except ssl.SSLError as error:
        if asked:
            told = "does not open it" if password else "is needed"
            raise Problem(f"the private key is encrypted: --ssl-keyfile-password {told}") from None
        if error.reason == "KEY_VALUES_MISMATCH":
            raise Problem(f"the key {key or certificate} does not belong to the certificate {certificate}") from None
        what = f"{certificate} and {key} are not" if key else f"{certificate} is not"
        hints = [] if key else ["--ssl-keyfile names a key in a file of its own"]
        raise Problem(f"{what} a certificate and its private key in PEM", *hints) from None
    except OSError as error:
        raise Problem(f"--ssl-certfile {certificate}: {error.strerror}") from None
