//! `linux.netDevices`: network interfaces of the host that a container gets.
//!
//! The runtime moves them, since it alone has rights in both network namespaces. An interface keeps
//! what belongs to the hardware by itself; the kernel takes its addresses, and it arrives down.
//! Runtime-spec, config-linux.md "Network Devices".

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};

use crate::error::{Error, Result};
use crate::plan::fds::Fds;
use crate::plan::namespaces::{NET, NetDevice};
use crate::plan::{Plan, namespaces};
use crate::sys::clone;

mod rtnetlink;

use rtnetlink::Socket;

/// Interfaces on their way, and what it takes to bring them back.
#[derive(Debug)]
pub struct Moved {
    host: Place,
    container: Place,
    /// The name on the host, the name in the container.
    names: Vec<(String, String)>,
}

/// A network namespace and a socket in it.
#[derive(Debug)]
struct Place {
    namespace: OwnedFd,
    socket: Socket,
}

impl Moved {
    /// Opens both network namespaces: the runtime's own, and that of the container, which is joined
    /// or was made with process `pid`.
    ///
    /// # Errors
    /// [`Error::Host`] if a namespace cannot be opened or entered.
    pub fn between(plan: &Plan, fds: &Fds, pid: i32) -> Result<Self> {
        let open = |path: &str| {
            let file = File::open(path).map_err(|error| Error::host("open", path, error))?;
            Ok::<OwnedFd, Error>(file.into())
        };
        let joins = plan.namespaces.joins.iter().zip(&fds.joins);
        let joined = joins
            .into_iter()
            .find_map(|(join, fd)| (join.kind == NET).then_some(fd));
        let theirs = match joined {
            Some(fd) => fd
                .try_clone()
                .map_err(|error| Error::host("dup", "a network namespace", error))?,
            None => open(&format!("/proc/{pid}/ns/{}", namespaces::proc_name(NET)))?,
        };
        let own = open("/proc/self/ns/net")?;
        let failed = |errno| Error::host("open", "a netlink socket", errno);
        let here = Socket::open().map_err(failed)?;
        let enter = |namespace: &OwnedFd| {
            clone::setns(namespace.as_fd(), NET)
                .map_err(|errno| Error::host("enter", "a network namespace", errno))
        };
        enter(&theirs)?;
        let there = Socket::open().map_err(failed);
        enter(&own)?;
        Ok(Self {
            host: Place {
                namespace: own,
                socket: here,
            },
            container: Place {
                namespace: theirs,
                socket: there?,
            },
            names: Vec::new(),
        })
    }

    /// Moves one interface into the container.
    ///
    /// # Errors
    /// [`Error::Spec`] if there is no such interface or its new name is taken; [`Error::Host`] if
    /// the kernel does not let it go.
    pub fn take(&mut self, device: &NetDevice) -> Result<()> {
        let failed =
            |errno| Error::host("move", format!("network device {:?}", device.name), errno);
        let found = self.host.socket.index(&device.name).map_err(failed)?;
        if found.is_none() {
            let why = format!("there is no network device {:?} on the host", device.name);
            return Err(Error::spec(device.at.clone(), why));
        }
        let inside = self.free_name(device)?;
        // Before it moves, so that one that is stuck on the way comes back, too.
        self.names.push((device.name.clone(), inside.clone()));
        carry(&self.host, &self.container, &device.name, &inside).map_err(failed)
    }

    /// The interface's name in the container; for one with `%d` the first number that is free.
    fn free_name(&self, device: &NetDevice) -> Result<String> {
        let is_free = |name: &str| {
            let index = self.container.socket.index(name);
            index
                .map(|index| index.is_none())
                .map_err(|errno| Error::host("look for", format!("network device {name:?}"), errno))
        };
        let Some((before, after)) = device.inside.split_once("%d") else {
            return match is_free(&device.inside)? {
                true => Ok(device.inside.clone()),
                false => {
                    let why = format!("the container has a network device {:?}", device.inside);
                    Err(Error::spec(device.at.clone(), why))
                }
            };
        };
        for number in 0..MOST_NUMBERS {
            let name = format!("{before}{number}{after}");
            if is_free(&name)? {
                return Ok(name);
            }
        }
        let why = format!("no number is free for {:?}", device.inside);
        Err(Error::spec(device.at.clone(), why))
    }

    /// Brings back to the host what has been moved, for a container that is not created after all.
    pub fn give_back(self) {
        for (name, inside) in self.names.iter().rev() {
            // A device that has not left must not be replaced by its namesake of a joined namespace.
            if let Ok(None) = self.host.socket.index(name) {
                // Nobody hears of what does not work, as with everything that is undone.
                let _ = carry(&self.container, &self.host, inside, name);
            }
        }
    }
}

/// As many as the kernel itself tries.
const MOST_NUMBERS: u32 = 32768;

/// Moves an interface with its addresses, and brings it up.
fn carry(from: &Place, to: &Place, name: &str, new: &str) -> crate::sys::Result<()> {
    use crate::sys::Errno;
    let index = from.socket.index(name)?.ok_or(Errno::ENODEV)?;
    let addresses = from.socket.addresses(index)?;
    from.socket.give_away(index, to.namespace.as_fd(), new)?;
    let index = to.socket.index(new)?.ok_or(Errno::ENODEV)?;
    for address in &addresses {
        to.socket.add_address(index, address)?;
    }
    to.socket.bring_up(index)
}
