"""The `flows` of `security.OAuth2`: in antiphon plain mappings, under OpenAPI's names."""

OAuthFlow = dict
OAuthFlows = dict
OAuthFlowPassword = dict
OAuthFlowAuthorizationCode = dict
OAuthFlowClientCredentials = dict
OAuthFlowImplicit = dict
