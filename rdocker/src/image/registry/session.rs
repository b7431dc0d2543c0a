//! Talking to one registry: tokens, redirects, retries of what may be retried.
//!
//! A secret goes to the origin (scheme, host, port) that it is for, and nowhere else: a redirect
//! to another origin is followed without it, and a 401 from there is an error and no challenge
//! (CVE-2020-15157).

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ureq::Agent;

use super::challenge::{self, Challenge};
use super::credentials::Credential;
use super::endpoint::{Endpoint, endpoints};
use super::http::{self, Answer, Origin, Payload, resolve};
use super::{Error, RegistryOptions, Result};

/// The most redirects of one request.
const REDIRECTS_MAX: usize = 5;
/// The largest answer of a token server, in bytes.
const TOKEN_MAX: u64 = 1 << 20;

/// What is wanted of a repository.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Reading.
    Pull,
    /// Reading and writing.
    Push,
}

/// A registry that answered, and who we are to it.
pub struct Session {
    agent: Agent,
    base: String,
    origin: Origin,
    insecure: bool,
    /// Whether this is a mirror of what was asked for.
    pub mirror: bool,
    credential: Option<Credential>,
    challenge: Mutex<Option<Challenge>>,
    tokens: Mutex<HashMap<String, String>>,
}

impl Session {
    /// Tries the ways to a registry in turn and answers with those that speak its protocol.
    ///
    /// # Errors
    /// The last way's error if none does.
    pub fn open_all(
        domain: &str,
        options: &RegistryOptions,
        access: Access,
    ) -> Result<Vec<Session>> {
        let credential = options.credentials.get(domain)?;
        let mut sessions: Vec<Session> = Vec::new();
        let mut first_error = None;
        for endpoint in endpoints(domain, options)? {
            if access == Access::Push && endpoint.mirror {
                continue;
            }
            // A host that speaks https is not asked again in plain HTTP.
            let host = |base: &str| base.split_once("://").map(|(_, host)| host.to_owned());
            if sessions
                .iter()
                .any(|known| host(&known.base) == host(&endpoint.base))
            {
                continue;
            }
            match Session::open(endpoint, credential.clone()) {
                Ok(session) => sessions.push(session),
                // http after https on one host: the first error is the one to tell.
                Err(error) => drop(first_error.get_or_insert(error)),
            }
        }
        match first_error {
            Some(error) if sessions.is_empty() => Err(error),
            _ => Ok(sessions),
        }
    }

    fn open(endpoint: Endpoint, credential: Option<Credential>) -> Result<Session> {
        let url = format!("{}/v2/", endpoint.base);
        let origin = Origin::of(&url).ok_or_else(|| Error::Protocol {
            registry: endpoint.base.clone(),
            why: "it has no host".to_owned(),
        })?;
        let answer = http::call(&endpoint.agent, "GET", &url, &[], Payload::Nothing)?;
        let challenge = match answer.status {
            401 => find_challenge(&answer),
            // 404: no /v2/ at the root, but the repositories may be there.
            200 | 404 => None,
            _ => return Err(answer.error("Get")),
        };
        Ok(Session {
            agent: endpoint.agent,
            base: endpoint.base,
            origin,
            insecure: endpoint.insecure,
            credential: credential.filter(|_| !endpoint.mirror),
            mirror: endpoint.mirror,
            challenge: Mutex::new(challenge),
            tokens: Mutex::default(),
        })
    }

    /// The registry's host and port.
    pub fn host(&self) -> &str {
        &self.origin.authority
    }

    /// The URL of a path that begins with `/`.
    pub fn url(&self, path: &str) -> String {
        format!("{}{path}", self.base)
    }

    /// GET or HEAD, through redirects.
    pub fn get(
        &self,
        method: &'static str,
        url: &str,
        headers: &[(&str, &str)],
        scope: &str,
    ) -> Result<Answer> {
        let mut url = url.to_owned();
        for _ in 0..=REDIRECTS_MAX {
            let answer = self.once(method, &url, headers, scope)?;
            if !matches!(answer.status, 301 | 302 | 303 | 307 | 308) {
                return Ok(answer);
            }
            url = self.redirect(&answer)?;
        }
        Err(self.protocol("it redirects more than 5 times"))
    }

    /// One request of a method that changes something; the body is made anew for a second try.
    pub fn send<'b>(
        &self,
        method: &'static str,
        url: &str,
        headers: &[(&str, &str)],
        scope: &str,
        mut body: impl FnMut() -> Result<Payload<'b>>,
    ) -> Result<Answer> {
        let answer = self.call(method, url, headers, scope, body()?)?;
        if answer.status != 401 || !self.is_ours(url) || !self.renew(&answer, scope)? {
            return Ok(answer);
        }
        self.call(method, url, headers, scope, body()?)
    }

    /// One request with a streamed body, which cannot be sent a second time.
    pub fn stream(
        &self,
        method: &'static str,
        url: &str,
        headers: &[(&str, &str)],
        scope: &str,
        body: &mut dyn std::io::Read,
        size: u64,
    ) -> Result<Answer> {
        self.call(method, url, headers, scope, Payload::Stream(body, size))
    }

    /// Where an upload goes on: the `Location` of an answer.
    pub fn location(&self, answer: &Answer) -> Result<String> {
        self.redirect(answer)
    }

    fn once(
        &self,
        method: &'static str,
        url: &str,
        headers: &[(&str, &str)],
        scope: &str,
    ) -> Result<Answer> {
        let answer = self.call(method, url, headers, scope, Payload::Nothing)?;
        if answer.status != 401 || !self.is_ours(url) || !self.renew(&answer, scope)? {
            return Ok(answer);
        }
        self.call(method, url, headers, scope, Payload::Nothing)
    }

    fn call(
        &self,
        method: &'static str,
        url: &str,
        headers: &[(&str, &str)],
        scope: &str,
        body: Payload<'_>,
    ) -> Result<Answer> {
        let authorization = match self.is_ours(url) {
            true => self.authorization(scope)?,
            false => None,
        };
        let mut headers = headers.to_vec();
        if let Some(value) = &authorization {
            headers.push(("Authorization", value));
        }
        http::call(&self.agent, method, url, &headers, body)
    }

    fn is_ours(&self, url: &str) -> bool {
        Origin::of(url).as_ref() == Some(&self.origin)
    }

    fn redirect(&self, answer: &Answer) -> Result<String> {
        let location = answer
            .header("location")
            .ok_or_else(|| self.protocol("its redirect leads nowhere"))?;
        let target = resolve(&answer.url, location)
            .ok_or_else(|| self.protocol("its redirect is no http(s) URL"))?;
        let from_https = answer.url.starts_with("https://");
        if from_https && !target.starts_with("https://") && !self.insecure {
            return Err(self.protocol("it redirects from https to http: refused"));
        }
        Ok(target)
    }

    fn protocol(&self, why: &str) -> Error {
        Error::Protocol {
            registry: self.host().to_owned(),
            why: why.to_owned(),
        }
    }

    fn authorization(&self, scope: &str) -> Result<Option<String>> {
        let challenge = lock(&self.challenge).clone();
        match challenge {
            None => Ok(None),
            Some(Challenge::Basic) => Ok(self.basic()),
            Some(Challenge::Bearer { realm, service, .. }) => {
                if let Some(token) = lock(&self.tokens).get(scope) {
                    return Ok(Some(format!("Bearer {token}")));
                }
                let token = self.token(&realm, service.as_deref(), scope)?;
                let header = format!("Bearer {token}");
                lock(&self.tokens).insert(scope.to_owned(), token);
                Ok(Some(header))
            }
        }
    }

    fn basic(&self) -> Option<String> {
        match &self.credential {
            Some(Credential::Password { user, password }) => Some(format!(
                "Basic {}",
                STANDARD.encode(format!("{user}:{password}"))
            )),
            _ => None,
        }
    }

    /// Takes the challenge of a 401; `false` if there is nothing new to answer with.
    fn renew(&self, answer: &Answer, scope: &str) -> Result<bool> {
        let Some(found) = find_challenge(answer) else {
            return Ok(false);
        };
        let before = lock(&self.challenge).replace(found.clone());
        let had_token = lock(&self.tokens).remove(scope).is_some();
        Ok(match found {
            // The same password a second time would get the same answer.
            Challenge::Basic => before.is_none() && self.basic().is_some(),
            Challenge::Bearer { .. } => before.is_none() || had_token,
        })
    }

    /// Fetches a token. The server is told the password, so it must be worth it.
    fn token(&self, realm: &str, service: Option<&str>, scopes: &str) -> Result<String> {
        let origin =
            Origin::of(realm).ok_or_else(|| self.protocol("its token server is no http(s) URL"))?;
        // Plain HTTP may only be the insecure registry's own host.
        let safe =
            origin.scheme == "https" || (self.insecure && origin.host() == self.origin.host());
        if !safe {
            return Err(self.protocol("its token server is not https: refused"));
        }
        let mut pairs: Vec<(&str, &str)> = service
            .iter()
            .map(|service| ("service", *service))
            .collect();
        pairs.extend(scopes.split_whitespace().map(|scope| ("scope", scope)));
        let answer = match &self.credential {
            Some(Credential::Identity { token, .. }) => {
                pairs.extend([
                    ("grant_type", "refresh_token"),
                    ("refresh_token", token),
                    ("client_id", "rdocker"),
                ]);
                let body = query(&pairs);
                let kind = [("Content-Type", "application/x-www-form-urlencoded")];
                http::call(
                    &self.agent,
                    "POST",
                    realm,
                    &kind,
                    Payload::Bytes(body.as_bytes()),
                )?
            }
            _ => {
                let basic = self.basic();
                if let Some(Credential::Password { user, .. }) = &self.credential {
                    pairs.insert(0, ("account", user));
                }
                let join = if realm.contains('?') { '&' } else { '?' };
                let url = format!("{realm}{join}{}", query(&pairs));
                let header: Vec<_> = basic
                    .iter()
                    .map(|basic| ("Authorization", basic.as_str()))
                    .collect();
                http::call(&self.agent, "GET", &url, &header, Payload::Nothing)?
            }
        };
        if answer.status != 200 {
            return Err(answer.error("Get"));
        }
        let value: serde_json::Value = serde_json::from_slice(&answer.bytes(TOKEN_MAX)?)
            .map_err(|_| self.protocol("its token server's answer is not JSON"))?;
        let text = |name: &str| {
            value
                .get(name)
                .and_then(|text| text.as_str())
                .filter(|text| !text.is_empty())
        };
        let token = text("token").or_else(|| text("access_token"));
        let token = token.ok_or_else(|| self.protocol("its token server gave no token"))?;
        let is_plain = token.bytes().all(|b| b.is_ascii_graphic());
        if is_plain {
            Ok(token.to_owned())
        } else {
            Err(self.protocol("its token is malformed"))
        }
    }
}

/// The scope of a token for a repository.
pub fn scope(repository: &str, access: Access) -> String {
    let actions = match access {
        Access::Pull => "pull",
        Access::Push => "pull,push",
    };
    format!("repository:{repository}:{actions}")
}

fn find_challenge(answer: &Answer) -> Option<Challenge> {
    let headers = answer.headers.get_all("www-authenticate");
    let mut found: Vec<Challenge> = headers
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(challenge::parse)
        .collect();
    found.sort_by_key(|challenge| matches!(challenge, Challenge::Basic));
    found.into_iter().next()
}

/// `a=b&c=d` with percent escapes.
pub fn query(pairs: &[(&str, &str)]) -> String {
    let escape = |text: &str| -> String {
        text.bytes()
            .map(|b| match b {
                b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                    char::from(b).to_string()
                }
                other => format!("%{other:02X}"),
            })
            .collect()
    };
    let pairs: Vec<String> = pairs
        .iter()
        .map(|(k, v)| format!("{}={}", escape(k), escape(v)))
        .collect();
    pairs.join("&")
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_is_escaped() {
        let pairs = [("scope", "repository:a/b:pull,push"), ("service", "x y&z")];
        assert_eq!(
            query(&pairs),
            "scope=repository%3Aa%2Fb%3Apull%2Cpush&service=x%20y%26z"
        );
    }
}
