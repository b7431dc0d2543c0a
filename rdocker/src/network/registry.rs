//! The networks and the running containers on them, in the store's database.

use std::collections::BTreeSet;
use std::net::IpAddr;

use jiff::Timestamp;
use rusqlite::{OptionalExtension, Transaction, params};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{DEFAULT, Endpoint, Network, PREDEFINED};
use crate::error::{Error, Result};
use crate::host::Host;
use crate::store::{self, Store};

/// The networks of one data root.
#[derive(Clone, Copy)]
pub struct Networks<'a> {
    /// Where they are kept.
    pub store: &'a Store,
}

fn parse<T: DeserializeOwned>(text: &str) -> store::Result<T> {
    serde_json::from_str(text).map_err(|error| store::Error::Damaged {
        path: "meta.db".into(),
        why: error.to_string(),
    })
}

fn text<T: Serialize>(value: &T) -> String {
    serde_json::to_string(value).expect("networks are plain data")
}

/// All rows of a query whose only column is JSON.
fn all<T: DeserializeOwned>(
    view: &Transaction<'_>,
    query: &str,
    parameter: &[&dyn rusqlite::ToSql],
) -> store::Result<Vec<T>> {
    let mut statement = view.prepare(query)?;
    let rows = statement.query_map(parameter, |row| row.get::<_, String>(0))?;
    rows.map(|row| parse(&row?)).collect()
}

/// Every network, in one view of the database.
pub fn networks(view: &Transaction<'_>) -> store::Result<Vec<Network>> {
    let mut list: Vec<Network> = all(view, "SELECT settings FROM networks", &[])?;
    list.sort_by(|a, b| a.created.cmp(&b.created).then(a.name.cmp(&b.name)));
    Ok(list)
}

/// Every running container's places, in one view of the database.
pub fn endpoints(view: &Transaction<'_>) -> store::Result<Vec<Endpoint>> {
    all(view, "SELECT settings FROM endpoints", &[])
}

/// Puts a network in.
///
/// # Errors
/// Its name is taken.
pub fn insert(change: &Transaction<'_>, network: &Network) -> store::Result<()> {
    change.execute(
        "INSERT INTO networks (id, name, settings) VALUES (?, ?, ?)",
        params![network.id, network.name, text(network)],
    )?;
    Ok(())
}

/// Replaces what is known of a network.
pub fn update(change: &Transaction<'_>, network: &Network) -> store::Result<()> {
    change.execute(
        "UPDATE networks SET settings = ? WHERE id = ?",
        params![text(network), network.id],
    )?;
    Ok(())
}

/// Forgets one container's places.
pub fn remove_endpoints(change: &Transaction<'_>, container: &str) -> store::Result<()> {
    change.execute("DELETE FROM endpoints WHERE container = ?", [container])?;
    Ok(())
}

/// Puts an endpoint in, or replaces it.
pub fn put_endpoint(change: &Transaction<'_>, endpoint: &Endpoint) -> store::Result<()> {
    change.execute(
        "INSERT OR REPLACE INTO endpoints (network, container, settings) VALUES (?, ?, ?)",
        params![endpoint.network, endpoint.container, text(endpoint)],
    )?;
    Ok(())
}

/// The endpoints on one network.
pub fn endpoints_on(view: &Transaction<'_>, network: &str) -> store::Result<Vec<Endpoint>> {
    all(
        view,
        "SELECT settings FROM endpoints WHERE network = ?",
        &[&network],
    )
}

/// The address that a network gave last, in one family.
pub fn last_address(view: &Transaction<'_>, id: &str, ipv6: bool) -> store::Result<Option<IpAddr>> {
    let query = if ipv6 {
        "SELECT last6 FROM networks WHERE id = ?"
    } else {
        "SELECT last4 FROM networks WHERE id = ?"
    };
    let row: Option<Option<String>> = view.query_row(query, [id], |row| row.get(0)).optional()?;
    Ok(row.flatten().and_then(|text| text.parse().ok()))
}

/// Remembers which address was given last.
pub fn remember_address(change: &Transaction<'_>, id: &str, address: IpAddr) -> store::Result<()> {
    let query = if address.is_ipv6() {
        "UPDATE networks SET last6 = ? WHERE id = ?"
    } else {
        "UPDATE networks SET last4 = ? WHERE id = ?"
    };
    change.execute(query, params![address.to_string(), id])?;
    Ok(())
}

impl Networks<'_> {
    /// Every network; the predefined ones are made if they are missing.
    ///
    /// # Errors
    /// The database failed.
    pub fn list(&self) -> Result<Vec<Network>> {
        let found = self.store.read(networks)?;
        let missing = |name: &&&str| !found.iter().any(|network| network.name == **name);
        if PREDEFINED.iter().any(|name| missing(&name)) {
            self.store.write(|change| -> store::Result<()> {
                let names: BTreeSet<String> = networks(change)?
                    .into_iter()
                    .map(|network| network.name)
                    .collect();
                for name in PREDEFINED.iter().filter(|name| !names.contains(**name)) {
                    insert(change, &predefined(name))?;
                }
                Ok(())
            })?;
            return Ok(self.store.read(networks)?);
        }
        Ok(found)
    }

    /// Finds a network by full id, name, or unique id prefix, in this order.
    ///
    /// # Errors
    /// `network X not found`; several ids begin with it.
    pub fn find(&self, text: &str) -> Result<Network> {
        let mut list = self.list()?;
        let exact = list
            .iter()
            .position(|network| network.id == text)
            .or_else(|| list.iter().position(|network| network.name == text));
        if let Some(index) = exact {
            return Ok(list.swap_remove(index));
        }
        let mut fitting = list
            .into_iter()
            .filter(|network| !text.is_empty() && network.id.starts_with(text));
        match (fitting.next(), fitting.next()) {
            (Some(network), None) => Ok(network),
            (Some(_), Some(_)) => Err(Error::Conflict(format!(
                "network {text} is ambiguous: several ids begin with it"
            ))),
            (None, _) => Err(Error::Conflict(format!("network {text} not found"))),
        }
    }

    /// The running container's places, the one with the way out first.
    ///
    /// # Errors
    /// The database failed.
    pub fn of_container(&self, id: &str) -> Result<Vec<Endpoint>> {
        let query = "SELECT settings FROM endpoints WHERE container = ?";
        let mut list: Vec<Endpoint> = self.store.read(|view| all(view, query, &[&id]))?;
        list.sort_by(|a, b| a.interface.cmp(&b.interface));
        Ok(list)
    }

    /// Every running container's places.
    ///
    /// # Errors
    /// The database failed.
    pub fn endpoints(&self) -> Result<Vec<Endpoint>> {
        Ok(self.store.read(endpoints)?)
    }

    /// Forgets a network and who was on it.
    ///
    /// # Errors
    /// The database failed.
    pub fn remove(&self, id: &str) -> Result<()> {
        self.store.write(|change| -> store::Result<()> {
            change.execute("DELETE FROM networks WHERE id = ?", [id])?;
            change.execute("DELETE FROM endpoints WHERE network = ?", [id])?;
            Ok(())
        })?;
        Ok(())
    }

    /// Notes that `parent` calls `child` by `alias`.
    ///
    /// # Errors
    /// The database failed.
    pub fn link(&self, parent: &str, child: &str, alias: &str) -> Result<()> {
        self.store.write(|change| -> store::Result<()> {
            change.execute(
                "INSERT OR REPLACE INTO links (parent, child, alias) VALUES (?, ?, ?)",
                [parent, child, alias],
            )?;
            Ok(())
        })?;
        Ok(())
    }

    /// Whom `parent` has links to: container id and alias.
    ///
    /// # Errors
    /// The database failed.
    pub fn children(&self, parent: &str) -> Result<Vec<(String, String)>> {
        let query = "SELECT child, alias FROM links WHERE parent = ? ORDER BY alias";
        self.pairs(query, parent)
    }

    /// Who has a link to `child`: container id and alias.
    ///
    /// # Errors
    /// The database failed.
    pub fn parents(&self, child: &str) -> Result<Vec<(String, String)>> {
        let query = "SELECT parent, alias FROM links WHERE child = ? ORDER BY alias";
        self.pairs(query, child)
    }

    fn pairs(&self, query: &str, id: &str) -> Result<Vec<(String, String)>> {
        Ok(self.store.read(|view| {
            let mut statement = view.prepare(query)?;
            let rows = statement.query_map([id], |row| Ok((row.get(0)?, row.get(1)?)))?;
            Ok(rows.collect::<rusqlite::Result<Vec<_>>>()?)
        })?)
    }

    /// Forgets the link called `alias`; whether there was one.
    ///
    /// # Errors
    /// The database failed.
    pub fn unlink(&self, parent: &str, alias: &str) -> Result<bool> {
        let query = "DELETE FROM links WHERE parent = ? AND alias = ?";
        Ok(self.store.write(|change| -> store::Result<bool> {
            Ok(change.execute(query, [parent, alias])? > 0)
        })?)
    }

    /// Forgets every link from or to a container that is gone.
    ///
    /// # Errors
    /// The database failed.
    pub fn forget_links(&self, id: &str) -> Result<()> {
        if self.children(id)?.is_empty() && self.parents(id)?.is_empty() {
            return Ok(());
        }
        self.store.write(|change| -> store::Result<()> {
            change.execute("DELETE FROM links WHERE parent = ?1 OR child = ?1", [id])?;
            Ok(())
        })?;
        Ok(())
    }
}

/// The three networks that are always there; the bridge gets its range when it is first used.
fn predefined(name: &str) -> Network {
    let driver = if name == "none" { "null" } else { name };
    Network {
        id: crate::container::id::random(),
        name: name.to_owned(),
        driver: driver.to_owned(),
        created: Timestamp::now(),
        ..Network::default()
    }
}

/// Whether a network of this name can be made or removed by a user.
///
/// # Errors
/// Docker's sentence for the predefined ones.
pub fn require_own(name: &str) -> Result<()> {
    if PREDEFINED.contains(&name) || name == "default" {
        return Err(Error::Conflict(format!(
            "operation is not permitted on predefined {name} network"
        )));
    }
    Ok(())
}

/// The lock under which addresses are given and rules are put in place.
///
/// # Errors
/// The file cannot be locked.
pub fn lock(host: &Host) -> Result<store::lock::FileLock> {
    let root = &host.data_root;
    Ok(store::lock::FileLock::exclusive(
        &root.join("network.lock"),
    )?)
}

/// The name of the default network where a mode says so.
pub fn named(mode: &str) -> &str {
    match mode {
        "" | "default" => DEFAULT,
        mode => mode,
    }
}
