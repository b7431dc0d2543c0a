//! What clients ask for.

use super::client::{Attached, Awaits};
use super::wire::{self, Kind, Reply, Request};
use super::{Monitor, policy};
use crate::container::network;
use crate::container::record::{Status, read_record};
use crate::error::{Error, Result};

impl Monitor<'_> {
    /// Reads from one client and answers it.
    pub(super) fn on_client(&mut self, index: usize) -> Result<()> {
        for (kind, body) in self.clients[index].receive() {
            match kind {
                Kind::Stdin => self.on_stdin(index, &body),
                Kind::Message => match wire::parse(&body) {
                    Ok(request) => self.on_request(index, request)?,
                    Err(_) => self.clients[index].closed = true,
                },
                Kind::Stdout | Kind::Stderr => self.clients[index].closed = true,
            }
        }
        Ok(())
    }

    fn on_stdin(&mut self, index: usize, bytes: &[u8]) {
        if self.clients[index].exec.is_some() {
            return self.on_exec_stdin(index, bytes);
        }
        let allowed = self.clients[index]
            .attached
            .is_some_and(|attached| attached.stdin);
        let Some(run) = self.run.as_mut().filter(|_| allowed) else {
            return;
        };
        if !bytes.is_empty() {
            run.streams.feed(bytes);
        } else if self.record.config.stdin_once {
            run.streams.end_stdin();
        }
    }

    fn on_request(&mut self, index: usize, request: Request) -> Result<()> {
        let result = match request {
            Request::Start => return self.on_start(index),
            Request::Attach {
                stdin,
                stdout,
                stderr,
            } => {
                self.clients[index].attached = Some(Attached {
                    stdin,
                    stdout,
                    stderr,
                });
                return Ok(());
            }
            Request::Resize { rows, columns } => {
                if self.clients[index].exec.is_some() {
                    self.resize_exec(index, rows, columns);
                } else if let Some(run) = &self.run {
                    run.streams.resize(rows, columns);
                }
                return Ok(());
            }
            Request::Wait { removed } => {
                let awaits = if removed {
                    Awaits::Removal
                } else {
                    Awaits::Exit
                };
                self.clients[index].awaits = Some(awaits);
                return Ok(());
            }
            Request::Stop { signal, timeout } => {
                // The answer comes when it has stopped.
                self.clients[index].awaits = Some(Awaits::Stop);
                match self.stop(signal, timeout) {
                    Ok(()) => return Ok(()),
                    failed => failed,
                }
            }
            Request::Kill { signal } if self.clients[index].exec.is_some() => {
                self.signal_exec(index, signal)
            }
            Request::Kill { signal } => self.on_kill(signal),
            Request::Pause => self.on_pause(),
            Request::Unpause => self.on_unpause(),
            Request::Reload => self.on_reload(),
            Request::Exec { id, streams } => self.on_exec(index, id, streams),
        };
        self.clients[index].reply(&told(result));
        Ok(())
    }

    /// The client hears of a failure before everything is taken down: its end of the connection
    /// may also wait for the removal.
    fn on_start(&mut self, index: usize) -> Result<()> {
        if self.run.is_some() {
            self.clients[index].reply(&Reply::Done);
            return Ok(());
        }
        self.state.manually_stopped = false;
        self.state.restart_count = 0;
        let begun = self.begin();
        let failed = begun.is_err();
        self.clients[index].reply(&told(begun));
        if failed { self.leave() } else { Ok(()) }
    }

    /// `docker kill`: a signal that ends the container by design also ends its restarts.
    fn on_kill(&mut self, signal: i32) -> Result<()> {
        if signal == libc::SIGKILL || signal == policy::stop_signal(&self.record.config) {
            self.state.manually_stopped = true;
        }
        if self.run.is_none() {
            return self.stop(signal, -1);
        }
        self.signal(signal)?;
        if self.state.status == Status::Paused && signal == libc::SIGKILL {
            self.runtime.resume(&self.places.run, &self.record.id)?;
        }
        self.event("kill", &[("signal", signal.to_string())])
    }

    fn on_pause(&mut self) -> Result<()> {
        let id = &self.record.id;
        if self.state.status == Status::Paused {
            return Err(Error::Conflict(format!("Container {id} is already paused")));
        }
        let paused = self.runtime.pause(&self.places.run, id);
        paused.map_err(|error| Error::Runtime {
            message: format!("Cannot pause container {id}: {error}"),
        })?;
        self.state.status = Status::Paused;
        self.save()?;
        self.event("pause", &[])
    }

    fn on_unpause(&mut self) -> Result<()> {
        if self.state.status != Status::Paused {
            return Err(Error::Conflict(format!(
                "Container {} is not paused",
                self.record.id
            )));
        }
        self.runtime.resume(&self.places.run, &self.record.id)?;
        self.state.status = Status::Running;
        self.save()?;
        self.event("unpause", &[])
    }

    /// `update`, `rename` or `network connect` have changed `config.json`.
    fn on_reload(&mut self) -> Result<()> {
        let Some(record) = read_record(&self.places.dir)? else {
            return Ok(());
        };
        if let Some(attached) = &mut self.network
            && (record.networks != self.record.networks || record.name != self.record.name)
        {
            network::with_plan(self.host, &record, |plan| attached.reload(self.host, plan))?;
            let (dir, places) = (&self.places.dir, &attached.endpoints);
            network::write_files(self.host, &record, dir, places)?;
        }
        self.record = record;
        Ok(())
    }

    /// A plain user's pasta has ended: another takes its place, or the container goes on without a
    /// network, which inspect and events tell.
    pub(super) fn on_lost_way_out(&mut self) -> Result<()> {
        let Some(attached) = &mut self.network else {
            return Ok(());
        };
        match attached.find_way_out(&self.places.run) {
            Ok(()) => {
                network::tell(self.host, "disconnect", &attached.endpoints)?;
                network::tell(self.host, "connect", &attached.endpoints)
            }
            Err(error) => {
                self.state.error = format!("the network was lost: {}", error.chain());
                self.detach();
                self.save()
            }
        }
    }
}

/// An outcome as clients hear it.
fn told(result: Result<()>) -> Reply {
    match result {
        Ok(()) => Reply::Done,
        Err(Error::Runtime { message }) => Reply::Failed {
            message,
            hint: String::new(),
            runtime: true,
        },
        Err(Error::Hinted { message, hint }) => Reply::Failed {
            message,
            hint,
            runtime: false,
        },
        Err(error) => Reply::Failed {
            message: error.chain(),
            hint: String::new(),
            runtime: false,
        },
    }
}
