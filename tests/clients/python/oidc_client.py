"""Logs in with Authlib, unmodified, at an OpenID provider, and prints what the provider's token says.

    oidc_client.py ISSUER CLIENT_ID CLIENT_SECRET AUTH_METHOD PERSON

AUTH_METHOD is client_secret_basic or client_secret_post. The userinfo endpoint is asked, and the code is brought a second time as well; what is said
to either is printed.
"""

import json
import os
import secrets
import sys

import requests
from authlib.integrations.base_client.errors import OAuthError
from authlib.integrations.requests_client import OAuth2Session
from joserfc import jwt
from joserfc.jwk import KeySet

# The provider of the tests listens on this very machine.
os.environ["AUTHLIB_INSECURE_TRANSPORT"] = "1"
ALGORITHMS = ["RS256", "ES256"]

issuer, client_id, client_secret, auth_method, person = sys.argv[1:6]
metadata = requests.get(f"{issuer}/.well-known/openid-configuration", timeout=30).json()
session = OAuth2Session(
    client_id,
    client_secret,
    scope="openid",
    redirect_uri="https://console.example.com/back",
    code_challenge_method="S256",
    token_endpoint_auth_method=auth_method,
)
verifier, nonce = secrets.token_urlsafe(48), secrets.token_urlsafe(16)
address, state = session.create_authorization_url(metadata["authorization_endpoint"], code_verifier=verifier, nonce=nonce)
back = requests.get(address, params={"login_hint": person}, allow_redirects=False, timeout=30).headers["Location"]


def exchange():
    return session.fetch_token(metadata["token_endpoint"], authorization_response=back, state=state, code_verifier=verifier)


token = exchange()["id_token"]
keys = KeySet.import_key_set(requests.get(metadata["jwks_uri"], timeout=30).json())
decoded = jwt.decode(token, keys, algorithms=ALGORITHMS)
expected = {
    "iss": {"essential": True, "value": metadata["issuer"]},
    "aud": {"essential": True, "value": client_id},
    "nonce": {"essential": True, "value": nonce},
    "exp": {"essential": True},
    "iat": {"essential": True},
    "sub": {"essential": True},
}
jwt.JWTClaimsRegistry(**expected).validate(decoded.claims)
userinfo = session.get(metadata["userinfo_endpoint"], timeout=30).json()
assert userinfo["sub"] == decoded.claims["sub"], userinfo
try:
    exchange()
    again = None
except OAuthError as error:
    again = error.error
print(json.dumps({"alg": decoded.header["alg"], "groups": decoded.claims["groups"], "userinfo": userinfo["groups"], "again": again}))
