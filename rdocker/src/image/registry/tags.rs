//! The tags of a repository.

use serde::Deserialize;

use super::super::reference::Reference;
use super::session::{Access, Session, scope};
use super::{Error, RegistryOptions, Result};

/// The largest page of tags, in bytes.
const PAGE_MAX: u64 = 8 << 20;
/// A registry that never comes to the last page is not believed.
const PAGES_MAX: usize = 1000;

#[derive(Deserialize)]
struct Page {
    /// `null` if there are none.
    tags: Option<Vec<String>>,
}

/// All tags of the repository that `name` is in, page by page.
///
/// Source: distribution-spec, "Listing Tags": the next page is in a `Link` header (RFC 5988).
pub fn tags(name: &Reference, options: &RegistryOptions) -> Result<Vec<String>> {
    let protocol = |why: &str| Error::Protocol {
        registry: name.domain().to_owned(),
        why: why.to_owned(),
    };
    let sessions = Session::open_all(name.domain(), options, Access::Pull)?;
    // A mirror knows a part of them.
    let session = sessions.iter().find(|session| !session.mirror);
    let session = session.ok_or_else(|| protocol("it does not answer"))?;
    let scope = scope(name.path(), Access::Pull);
    let mut url = session.url(&format!("/v2/{}/tags/list?n=1000", name.path()));
    let mut all = Vec::new();
    for _ in 0..PAGES_MAX {
        let answer = session.get("GET", &url, &[], &scope)?;
        match answer.status {
            200 => {}
            401 | 404 => {
                return Err(Error::PullDenied {
                    name: name.familiar_name(),
                    why: answer.error("Get").to_string(),
                });
            }
            _ => return Err(answer.error("Get")),
        }
        let next = answer.header("link").and_then(next_page).map(str::to_owned);
        let next = next.and_then(|link| super::http::resolve(&url, &link));
        let page: Page = serde_json::from_slice(&answer.bytes(PAGE_MAX)?)
            .map_err(|_| protocol("its answer is no list of tags"))?;
        all.extend(page.tags.into_iter().flatten());
        match next {
            // Credentials go to this registry alone.
            Some(next) if next.starts_with(&session.url("/v2/")) => url = next,
            _ => return Ok(all),
        }
    }
    Err(protocol("its list of tags does not end"))
}

/// The target of `<URL>; rel="next"`.
fn next_page(header: &str) -> Option<&str> {
    let (target, parameters) = header.strip_prefix('<')?.split_once('>')?;
    let is_next = parameters
        .split(';')
        .any(|word| matches!(word.trim(), "rel=\"next\"" | "rel=next"));
    is_next.then_some(target)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_page_is_the_one_the_registry_links() {
        let link = "</v2/a/tags/list?last=x&n=2>; rel=\"next\"";
        assert_eq!(next_page(link), Some("/v2/a/tags/list?last=x&n=2"));
        assert_eq!(next_page("</v2/a>; rel=\"prev\""), None);
        assert_eq!(next_page("nonsense"), None);
    }
}
