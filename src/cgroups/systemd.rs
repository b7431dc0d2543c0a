//! Cgroups that systemd makes: a transient scope around the container's first process.
//!
//! The unit is started when that process exists and waits, in one exchange on one connection. Then
//! the files get what no property says, through the driver of the cgroup's version, which also
//! answers everything that does not change the unit.

use std::cell::RefCell;
use std::time::Duration;

use nix::unistd::geteuid;
use oci_spec::runtime::{LinuxDeviceCgroup, LinuxResources};

use super::dbus::{self, Body, Bus, Message, Method};
use super::devices::{self, V1List};
use super::tree::is_denied;
use super::unit::{Property, as_systemd_has_it, limit_properties, start_properties};
use super::unit_devices::device_properties;
use super::{Below, Driver, Files, OomWatch, Placement, Saved, Stats, Unit, Version, limits};
use crate::error::{Error, Result};

/// How long systemd may take for a job, as in runc.
const JOB_WAIT: Duration = Duration::from_secs(30);
/// The same for removal, which must not hold up `delete`.
const STOP_WAIT: Duration = Duration::from_secs(10);

const BUS: &str = "org.freedesktop.DBus";
const SYSTEMD: &str = "org.freedesktop.systemd1";
const UNIT_EXISTS: &str = "org.freedesktop.systemd1.UnitExists";
const NO_SUCH_UNIT: &str = "org.freedesktop.systemd1.NoSuchUnit";

/// See the module text.
pub struct Systemd {
    saved: Saved,
    unit: Unit,
    files: Box<dyn Files>,
    /// What `place` does; without it processes join the running unit.
    start: RefCell<Option<Box<Start>>>,
}

/// A unit that is to be started, with what `limit` and `allow_devices` were told before.
struct Start {
    resources: Option<LinuxResources>,
    devices: Option<Vec<LinuxDeviceCgroup>>,
}

impl Systemd {
    pub fn new(saved: &Saved, unit: &Unit, files: Box<dyn Files>) -> Self {
        Self {
            saved: saved.clone(),
            unit: unit.clone(),
            files,
            start: RefCell::new(None),
        }
    }

    fn start_with(
        &self,
        pid: i32,
        resources: Option<&LinuxResources>,
        rules: &[LinuxDeviceCgroup],
    ) -> Result<()> {
        let number =
            u32::try_from(pid).map_err(|_| Error::Failed(format!("{pid} is no process")))?;
        let mut properties = start_properties(&self.unit, self.saved.version, number, resources)?;
        properties.extend(self.device_properties(rules)?);
        start_unit(&self.unit, properties)?;
        self.files.adopt(pid, resources)?;
        if let Some(resources) = resources {
            self.files.limit(&as_systemd_has_it(resources))?;
        }
        self.files.allow_devices(rules)
    }

    /// What systemd is told about devices: the system's own, on v1.
    fn device_properties(&self, rules: &[LinuxDeviceCgroup]) -> Result<Vec<Property>> {
        if self.saved.version == Version::V2 || self.unit.user {
            return Ok(Vec::new());
        }
        device_properties(&V1List::of(&devices::rules(rules)?)?)
    }
}

impl Driver for Systemd {
    fn prepare(&mut self, resources: Option<&LinuxResources>) -> Result<Placement> {
        self.files.refuse_used()?;
        let resources = resources.cloned();
        self.start = RefCell::new(Some(Box::new(Start {
            resources,
            devices: None,
        })));
        Ok(Placement::ByParent)
    }

    fn join(&mut self, init: i32, below: &Below) -> Result<Placement> {
        self.start = RefCell::new(None);
        let placement = self.files.join(init, below)?;
        // Without root's rights only systemd may move a process out of another of its units.
        match placement {
            Placement::AtBirth(_) if self.unit.user => Ok(Placement::ByParent),
            other => Ok(other),
        }
    }

    fn place(&self, pid: i32) -> Result<()> {
        if let Some(start) = self.start.take() {
            let rules = start.devices.unwrap_or_default();
            return self.start_with(pid, start.resources.as_ref(), &rules);
        }
        match self.files.place(pid) {
            Err(error) if self.unit.user && is_denied(&error) => attach(&self.unit, pid),
            other => other,
        }
    }

    fn limit(&self, limits: &LinuxResources) -> Result<()> {
        limits::check(limits, self.saved.version)?;
        if let Some(start) = &mut *self.start.borrow_mut() {
            start.resources = Some(limits.clone());
            return Ok(());
        }
        set_properties(&self.unit, limit_properties(limits, self.saved.version)?)?;
        self.files.limit(&as_systemd_has_it(limits))
    }

    fn allow_devices(&self, rules: &[LinuxDeviceCgroup]) -> Result<()> {
        if let Some(start) = &mut *self.start.borrow_mut() {
            start.devices = Some(rules.to_vec());
            return Ok(());
        }
        set_properties(&self.unit, self.device_properties(rules)?)?;
        self.files.allow_devices(rules)
    }

    fn verify_limits(&self, resources: &LinuxResources) -> Result<()> {
        self.files.verify_limits(&as_systemd_has_it(resources))
    }

    fn verify_devices(&self, rules: &[LinuxDeviceCgroup]) -> Result<()> {
        self.files.verify_devices(rules)
    }

    fn verify_placed(&self, pid: i32) -> Result<()> {
        self.files.verify_placed(pid)
    }

    fn freeze(&self) -> Result<()> {
        self.files.freeze()
    }

    fn thaw(&self) -> Result<()> {
        self.files.thaw()
    }

    fn is_frozen(&self) -> Result<bool> {
        self.files.is_frozen()
    }

    fn processes(&self) -> Result<Vec<i32>> {
        self.files.processes()
    }

    fn kill(&self, signal: i32) -> Result<()> {
        self.files.kill(signal)
    }

    fn stats(&self) -> Result<Stats> {
        self.files.stats()
    }

    fn oom_kills(&self) -> Result<u64> {
        self.files.oom_kills()
    }

    fn watch_oom(&self) -> Result<Option<OomWatch>> {
        self.files.watch_oom()
    }

    fn remove(&self) -> Result<()> {
        let stopped = stop_unit(&self.unit);
        // Cgroups that the container made below its own are not systemd's to remove on v1, and an
        // unreachable systemd is no failure if nothing is left.
        self.files.remove().or(stopped)
    }

    fn unseen(&self) -> Result<Vec<String>> {
        self.files.unseen()
    }

    fn saved(&self) -> Saved {
        self.files.saved()
    }
}

/// A connection on which the manager's jobs are announced.
struct Conversation {
    bus: Bus,
    /// Calls whose failure is of no interest.
    asides: Vec<u32>,
}

impl Conversation {
    fn with(unit: &Unit, limit: Duration) -> Result<Self> {
        let (private, public) = addresses(unit);
        if let Ok(bus) = Bus::connect(&private, limit) {
            // systemd itself: no greeting, and every job's end is told.
            return Ok(Self {
                bus,
                asides: Vec::new(),
            });
        }
        let mut bus = Bus::connect(&public, limit)?;
        let method = |name| Method {
            destination: BUS,
            path: "/org/freedesktop/DBus",
            interface: BUS,
            name,
        };
        let rule = "type='signal',interface='org.freedesktop.systemd1.Manager',member='JobRemoved'";
        let hello = bus.queue(method("Hello"), &Body::default());
        let matched = bus.queue(method("AddMatch"), &Body::default().text(rule));
        Ok(Self {
            bus,
            asides: vec![hello, matched],
        })
    }

    fn queue(&mut self, name: &str, body: &Body) -> u32 {
        let method = Method {
            destination: SYSTEMD,
            path: "/org/freedesktop/systemd1",
            interface: "org.freedesktop.systemd1.Manager",
            name,
        };
        self.bus.queue(method, body)
    }

    /// The answer to the call `serial`; others that come before are dropped.
    fn answer(&mut self, serial: u32) -> Result<Message> {
        loop {
            let message = self.bus.next()?;
            if message.kind != dbus::SIGNAL && message.reply_to == serial {
                return Ok(message);
            }
            let is_aside = self.asides.contains(&message.reply_to);
            if message.kind == dbus::ERROR && is_aside {
                return Err(Error::Failed(refusal(&message)));
            }
        }
    }

    /// Waits for the end of the job that the answer to `serial` names, and returns its result.
    fn job_result(&mut self, serial: u32) -> Result<Result<String, Message>> {
        let mut ended = Vec::new();
        let mut job = None;
        loop {
            let message = self.bus.next()?;
            match message.kind {
                dbus::ERROR if message.reply_to == serial => return Ok(Err(message)),
                dbus::ERROR if self.asides.contains(&message.reply_to) => {
                    return Err(Error::Failed(refusal(&message)));
                }
                dbus::METHOD_RETURN if message.reply_to == serial => {
                    job = message.values.into_iter().next();
                }
                // Id, job, unit, result.
                dbus::SIGNAL if message.name == "JobRemoved" => ended.push(message.values),
                _ => {}
            }
            let result = ended
                .iter()
                .find(|values| job.is_some() && values.get(1) == job.as_ref())
                .and_then(|values| values.get(3));
            if let Some(result) = result {
                return Ok(Ok(result.clone()));
            }
        }
    }
}

/// systemd's own socket, and the bus: of the system, or of the user.
fn addresses(unit: &Unit) -> (Vec<String>, Vec<String>) {
    if !unit.user {
        let private = if geteuid().is_root() {
            vec!["/run/systemd/private".into()]
        } else {
            Vec::new()
        };
        return (private, vec!["/run/dbus/system_bus_socket".into()]);
    }
    let runtime_dir = std::env::var("XDG_RUNTIME_DIR")
        .ok()
        .filter(|dir| dir.starts_with('/'));
    let below = |name: &str| {
        runtime_dir
            .iter()
            .map(|dir| format!("{dir}/{name}"))
            .collect::<Vec<_>>()
    };
    let session = std::env::var("DBUS_SESSION_BUS_ADDRESS").unwrap_or_default();
    let mut public: Vec<String> = session.split(';').filter_map(socket).collect();
    public.extend(below("bus"));
    (below("systemd/private"), public)
}

/// The socket of a D-Bus address like `unix:path=/run/user/1000/bus`.
fn socket(address: &str) -> Option<String> {
    let mut keys = address
        .strip_prefix("unix:")?
        .split(',')
        .filter_map(|pair| pair.split_once('='));
    keys.find_map(|(key, value)| match key {
        "path" => Some(value.to_owned()),
        "abstract" => Some(format!("@{value}")),
        _ => None,
    })
}

fn refusal(message: &Message) -> String {
    let text = message
        .values
        .first()
        .map_or("no reason given", String::as_str);
    format!("{text} ({})", message.name)
}

/// Starts the unit and waits until its process is in its cgroup.
fn start_unit(unit: &Unit, mut properties: Vec<Property>) -> Result<()> {
    let failed =
        |why: &str| Error::Failed(format!("systemd cannot start unit {}: {why}", unit.name));
    let mut was_reset = false;
    loop {
        let mut systemd = Conversation::with(unit, JOB_WAIT)?;
        let list = properties
            .iter()
            .map(|property| (property.name.as_str(), &property.value));
        let body = Body::default()
            .text(&unit.name)
            .text("replace")
            .properties(list)
            .no_units();
        let serial = systemd.queue("StartTransientUnit", &body);
        match systemd.job_result(serial)? {
            Ok(result) if result == "done" => return Ok(()),
            Ok(result) => {
                reset_failed(unit);
                return Err(failed(&format!("its job ended as {result:?}")));
            }
            // A failed unit of that name may be left over.
            Err(message) if message.name == UNIT_EXISTS && !was_reset => {
                was_reset = true;
                reset_failed(unit);
            }
            Err(message) if drop_unknown(&mut properties, &message) => {}
            Err(message) => return Err(failed(&refusal(&message))),
        }
    }
}

/// Takes out the newer property that an older systemd complains about; `false` if there is none.
fn drop_unknown(properties: &mut Vec<Property>, message: &Message) -> bool {
    let text = message.values.first().map_or("", String::as_str);
    let is_named = |property: &Property| property.may_be_unknown && text.contains(&property.name);
    let unknown = properties.iter().position(is_named);
    unknown.map(|at| properties.remove(at)).is_some()
}

fn set_properties(unit: &Unit, mut properties: Vec<Property>) -> Result<()> {
    while !properties.is_empty() {
        let mut systemd = Conversation::with(unit, JOB_WAIT)?;
        let list = properties
            .iter()
            .map(|property| (property.name.as_str(), &property.value));
        // Runtime only: nothing is to stay on disk.
        let body = Body::default().text(&unit.name).bool(true).properties(list);
        let serial = systemd.queue("SetUnitProperties", &body);
        let message = systemd.answer(serial)?;
        if message.kind != dbus::ERROR {
            return Ok(());
        }
        if !drop_unknown(&mut properties, &message) {
            let why = refusal(&message);
            return Err(Error::Failed(format!(
                "systemd cannot change unit {}: {why}",
                unit.name
            )));
        }
    }
    Ok(())
}

/// Lets systemd move a process into the unit: the user's may not do it himself.
fn attach(unit: &Unit, pid: i32) -> Result<()> {
    let mut systemd = Conversation::with(unit, JOB_WAIT)?;
    let body = Body::default()
        .text(&unit.name)
        .text("")
        .numbers(&[pid.unsigned_abs()]);
    let serial = systemd.queue("AttachProcessesToUnit", &body);
    match systemd.answer(serial)? {
        message if message.kind == dbus::ERROR => {
            let why = refusal(&message);
            Err(Error::Failed(format!(
                "systemd cannot add {pid} to unit {}: {why}",
                unit.name
            )))
        }
        _ => Ok(()),
    }
}

/// Stops the unit; that there is none is a success.
fn stop_unit(unit: &Unit) -> Result<()> {
    let mut systemd = Conversation::with(unit, STOP_WAIT)?;
    let stop = systemd.queue(
        "StopUnit",
        &Body::default().text(&unit.name).text("replace"),
    );
    match systemd.job_result(stop)? {
        Ok(_) => {
            // A unit that failed would stay in systemd's memory.
            let reset = systemd.queue("ResetFailedUnit", &Body::default().text(&unit.name));
            systemd.answer(reset).map(drop)
        }
        Err(message) if message.name == NO_SUCH_UNIT => Ok(()),
        Err(message) => {
            let why = refusal(&message);
            Err(Error::Failed(format!(
                "systemd cannot stop unit {}: {why}",
                unit.name
            )))
        }
    }
}

/// Best effort: who calls it has a failure to report already, or tries again.
fn reset_failed(unit: &Unit) {
    if let Ok(mut systemd) = Conversation::with(unit, STOP_WAIT) {
        let reset = systemd.queue("ResetFailedUnit", &Body::default().text(&unit.name));
        let _ = systemd.answer(reset);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_socket_of_a_bus_address_is_found() {
        let cases = [
            ("unix:path=/run/user/1000/bus", Some("/run/user/1000/bus")),
            ("unix:path=/x,guid=1", Some("/x")),
            ("unix:abstract=/tmp/dbus-X,guid=1", Some("@/tmp/dbus-X")),
            ("tcp:host=localhost", None),
            ("", None),
        ];
        for (address, want) in cases {
            assert_eq!(socket(address).as_deref(), want, "{address}");
        }
    }
}
