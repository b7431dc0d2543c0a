//! A container's network namespace.
//!
//! It is made before the container and lives as long as somebody holds its descriptor or a
//! process is in it: nothing is mounted, so nothing stays when everybody is gone, however they
//! went. The runtime finds it by a symlink to the monitor's descriptor.

use std::fs;
use std::io;
use std::net::{IpAddr, TcpListener, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::sched::{CloneFlags, setns, unshare};
use rustix::mount::{UnmountFlags, mount_bind, unmount};

use super::Endpoint;
use super::netlink::Socket;
use crate::error::{Error, Result};

/// The loopback link's index in every namespace.
const LOOPBACK: u32 = 1;
/// Where the runtime finds the namespace, in the container's run directory.
const LINK_NAME: &str = "netns";

/// A network namespace and a way to ask the kernel about it.
#[derive(Debug)]
pub struct Sandbox {
    netns: OwnedFd,
    socket: Socket,
}

fn fail(doing: &'static str) -> impl Fn(io::Error) -> Error {
    move |error| Error::host(doing, Path::new("network namespace"), error)
}

/// Runs `work` in a thread of its own, which may go to another namespace.
fn elsewhere<T: Send>(work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().spawn_scoped(scope, work)?;
        // A panic in the thread is a bug and has been reported as one.
        thread
            .join()
            .unwrap_or_else(|_| Err(io::ErrorKind::Other.into()))
    })
}

/// Takes away what leads to a container's namespace, of either kind.
pub fn unpublish(run: &Path) {
    let path = Sandbox::path(run);
    // Neither is there in most containers that are taken down.
    let _ = unmount(&path, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW);
    let _ = fs::remove_file(&path);
}

impl Sandbox {
    /// A new namespace whose loopback link is up.
    ///
    /// # Errors
    /// The kernel's.
    pub fn new() -> Result<Self> {
        let (netns, mut socket) = elsewhere(|| {
            unshare(CloneFlags::CLONE_NEWNET)?;
            let netns = OwnedFd::from(fs::File::open("/proc/thread-self/ns/net")?);
            // Links that are made later have no IPv6 until their network gives them some.
            let _ = fs::write("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1");
            Ok((netns, Socket::route()?))
        })
        .map_err(fail("make a"))?;
        socket
            .set_up(LOOPBACK)
            .map_err(fail("bring up loopback in the"))?;
        Ok(Self { netns, socket })
    }

    /// For messages that name the namespace.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.netns.as_fd()
    }

    /// Where the namespace of a container is found while its monitor lives.
    pub fn path(run: &Path) -> PathBuf {
        run.join(LINK_NAME)
    }

    /// Puts the symlink there that leads to this process's descriptor.
    ///
    /// # Errors
    /// The symlink cannot be made.
    pub fn publish(&self, run: &Path) -> Result<()> {
        let path = Self::path(run);
        let target = format!("/proc/{}/fd/{}", std::process::id(), self.netns.as_raw_fd());
        let _ = fs::remove_file(&path);
        std::os::unix::fs::symlink(target, &path)
            .map_err(|error| Error::host("make the symlink", &path, error))
    }

    /// Puts the namespace itself there, for programs that may not look into this process.
    ///
    /// # Errors
    /// The kernel's.
    pub fn mount(&self, run: &Path) -> Result<()> {
        let path = Self::path(run);
        unpublish(run);
        fs::File::create(&path).map_err(|error| Error::host("create", &path, error))?;
        let own = format!("/proc/self/fd/{}", self.netns.as_raw_fd());
        mount_bind(own, &path).map_err(|error| Error::host("mount the namespace on", &path, error))
    }

    /// Runs `work` in the namespace.
    ///
    /// # Errors
    /// What `work` gives; the namespace cannot be entered.
    pub fn within<T: Send>(&self, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        let mut result = None;
        let slot = &mut result;
        elsewhere(|| {
            setns(&self.netns, CloneFlags::CLONE_NEWNET)?;
            *slot = Some(work());
            Ok(())
        })
        .map_err(fail("enter the"))?;
        result.unwrap_or_else(|| Err(fail("enter the")(io::ErrorKind::Other.into())))
    }

    /// Gives the container's end of a pair its addresses, and brings it up.
    ///
    /// # Errors
    /// The kernel's.
    pub fn configure(&mut self, endpoint: &Endpoint) -> Result<()> {
        let name = &endpoint.interface;
        let link = self
            .socket
            .link(name)
            .map_err(fail("look for a link in the"))?;
        let link =
            link.ok_or_else(|| fail("look for a link in the")(io::ErrorKind::NotFound.into()))?;
        let has_ipv6 = endpoint.link_local.iter().any(|net| net.addr().is_ipv6());
        if endpoint.ipv6.is_some() || has_ipv6 {
            self.within(|| {
                let dir = Path::new("/proc/sys/net/ipv6/conf").join(name);
                // Addresses are ours to give: none comes from a router, none is looked for twice.
                let parameters = [
                    ("accept_ra", "0"),
                    ("accept_dad", "0"),
                    ("disable_ipv6", "0"),
                ];
                for (parameter, value) in parameters {
                    let path = dir.join(parameter);
                    fs::write(&path, value).map_err(|error| Error::host("write", &path, error))?;
                }
                Ok(())
            })?;
        }
        let addresses = endpoint.addresses().map(|address| address.net);
        for address in addresses.chain(endpoint.link_local.iter().copied()) {
            self.socket
                .add_address(link.index, address)
                .map_err(fail("add an address in the"))?;
        }
        self.socket
            .set_up(link.index)
            .map_err(fail("bring up a link in the"))
    }

    /// Leads everything else through a gateway, in the place of the one before.
    ///
    /// # Errors
    /// The kernel's.
    pub fn lead_out(&mut self, interface: &str, gateway: IpAddr) -> Result<()> {
        let link = self.socket.link(interface);
        let link = link.map_err(fail("look for a link in the"))?;
        let link =
            link.ok_or_else(|| fail("look for a link in the")(io::ErrorKind::NotFound.into()))?;
        self.socket
            .add_default_route(link.index, gateway)
            .map_err(fail("add a route in the"))
    }

    /// Writes parameters, by their paths below `/proc/sys/net`.
    ///
    /// # Errors
    /// The kernel's.
    pub fn set_parameters(&self, parameters: &[(PathBuf, String)]) -> Result<()> {
        if parameters.is_empty() {
            return Ok(());
        }
        self.within(|| {
            for (path, value) in parameters {
                let path = Path::new("/proc/sys/net").join(path);
                fs::write(&path, value).map_err(|error| Error::host("write", &path, error))?;
            }
            Ok(())
        })
    }

    /// Removes the container's end of a pair, and with it the other.
    ///
    /// # Errors
    /// The kernel's.
    pub fn remove_link(&mut self, name: &str) -> Result<()> {
        match self
            .socket
            .link(name)
            .map_err(fail("look for a link in the"))?
        {
            Some(link) => self
                .socket
                .delete_link(link.index)
                .map_err(fail("remove a link in the")),
            None => Ok(()),
        }
    }

    /// Sockets for the container's name server, on ports that the kernel chooses.
    ///
    /// # Errors
    /// The kernel's.
    pub fn name_sockets(&self) -> Result<(UdpSocket, TcpListener)> {
        self.within(|| {
            let bind = |error| fail("bind the name server's ports in the")(error);
            let udp = UdpSocket::bind("127.0.0.11:0").map_err(bind)?;
            let tcp = TcpListener::bind("127.0.0.11:0").map_err(bind)?;
            let port = |address: io::Result<std::net::SocketAddr>| {
                address.map(|address| address.port()).map_err(bind)
            };
            let ports = (port(udp.local_addr())?, port(tcp.local_addr())?);
            super::firewall::redirect_names(ports.0, ports.1)?;
            Ok((udp, tcp))
        })
    }
}
