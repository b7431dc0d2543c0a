//! `search`: repositories by a word.

use serde::Deserialize;

use super::super::reference::DEFAULT_DOMAIN;
use super::endpoint::endpoints;
use super::http::{self, Payload};
use super::session::{Access, Session, query};
use super::{Error, RegistryOptions, Result};

/// The host that searches docker.io.
const INDEX: &str = "https://index.docker.io";
/// The largest answer, in bytes.
const ANSWER_MAX: u64 = 8 << 20;

/// One repository that was found.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Found {
    /// Its name, to be pulled by.
    pub name: String,
    /// What its owner says of it.
    #[serde(default)]
    pub description: String,
    /// How many like it.
    #[serde(default)]
    pub star_count: u64,
    /// Whether Docker curates it.
    #[serde(default)]
    pub is_official: bool,
    /// Whether Docker builds it.
    #[serde(default)]
    pub is_automated: bool,
}

#[derive(Deserialize)]
struct Page {
    #[serde(default)]
    results: Vec<Found>,
}

#[derive(Deserialize)]
struct Catalog {
    #[serde(default)]
    repositories: Vec<String>,
}

/// Searches docker.io, or the registry that `term` begins with; a tag in the term is ignored.
pub fn search(term: &str, limit: usize, options: &RegistryOptions) -> Result<Vec<Found>> {
    let (domain, word) = match term.split_once('/') {
        Some((host, rest)) if host == "localhost" || host.contains(['.', ':']) => (host, rest),
        _ => (DEFAULT_DOMAIN, term),
    };
    let word = word.split(':').next().unwrap_or(word);
    let limit_text = limit.to_string();
    let path = format!("/v1/search?{}", query(&[("q", word), ("n", &limit_text)]));
    let mut last = None;
    for endpoint in endpoints(domain, options)?
        .iter()
        .filter(|endpoint| !endpoint.mirror)
    {
        let base = if domain == DEFAULT_DOMAIN {
            INDEX
        } else {
            &endpoint.base
        };
        match http::call(
            &endpoint.agent,
            "GET",
            &format!("{base}{path}"),
            &[],
            Payload::Nothing,
        ) {
            Ok(answer) if answer.status == 200 => {
                let page: Page = parse(domain, &answer.bytes(ANSWER_MAX)?)?;
                return Ok(page.results.into_iter().take(limit).collect());
            }
            // Most registries have no search; their catalogue is searched instead.
            Ok(_) if domain != DEFAULT_DOMAIN => return catalog(domain, word, limit, options),
            Ok(answer) => return Err(answer.error("Get")),
            Err(error) => drop(last.get_or_insert(error)),
        }
    }
    Err(last.unwrap_or_else(|| Error::Protocol {
        registry: domain.to_owned(),
        why: "it does not answer".to_owned(),
    }))
}

fn parse<T: for<'de> Deserialize<'de>>(domain: &str, bytes: &[u8]) -> Result<T> {
    serde_json::from_slice(bytes).map_err(|_| Error::Protocol {
        registry: domain.to_owned(),
        why: "its answer is not what a search answers".to_owned(),
    })
}

fn catalog(
    domain: &str,
    word: &str,
    limit: usize,
    options: &RegistryOptions,
) -> Result<Vec<Found>> {
    let mut found = Vec::new();
    for session in Session::open_all(domain, options, Access::Pull)? {
        let url = session.url("/v2/_catalog?n=1000");
        let answer = session.get("GET", &url, &[], "registry:catalog:*")?;
        if answer.status != 200 {
            return Err(answer.error("Get"));
        }
        let catalog: Catalog = parse(domain, &answer.bytes(ANSWER_MAX)?)?;
        let matching = catalog
            .repositories
            .into_iter()
            .filter(|name| name.contains(word));
        found.extend(matching.map(|name| Found {
            name: format!("{domain}/{name}"),
            description: String::new(),
            star_count: 0,
            is_official: false,
            is_automated: false,
        }));
    }
    found.truncate(limit);
    Ok(found)
}
