//! keel's modules, one sentence each. A module uses only modules listed below it, verbs do not use
//! each other (except run, which is create, start and delete), and the child sees the plan's types
//! and `sys` alone. `import_rule` checks this.

#[cfg(any(test, fuzzing))]
pub mod fuzz; // hostile input for what is read below
pub mod verbs; // from the verb to the function that does it
pub mod cli; // the command line, as runc's callers write it

// The verbs, one file each.
pub mod checkpoint; // processes to files
pub mod create; // from a bundle to a process that waits to execute its program
pub mod delete; // what a container has left
pub mod events; // statistics, out-of-memory notices
pub mod exec; // one more process in a container
pub mod features; // what this keel can do
pub mod kill; // a signal to a container
pub mod list; // which containers there are, and how they are
pub mod mounts; // mounts of a running container
pub mod pause; // freeze and thaw
pub mod plan_cmd; // what create would do
pub mod ps; // the processes of a container
pub mod restore; // processes from files
pub mod run; // create and start, in the foreground until the end
pub mod spec_cmd; // a config.json to start from
pub mod start; // opens the gate
pub mod update; // limits of a running container

pub mod context; // what every verb is given: store, log, global flags, host
pub mod confine; // what keel gives up while it only waits
pub mod foreground; // signals, terminal and end of a program that keel waits for
pub mod notify; // what the container says of its readiness, passed on
pub mod hooks; // hooks that the runtime runs in its own namespaces
pub mod netdevices; // network interfaces of the host that a container gets
pub mod criu; // its RPC: what checkpoint and restore ask of it
pub mod handover; // descriptors that callers pass through keel, and files they wait for
pub mod verify; // --verify: what the kernel has really done
pub mod spawn; // the parent's half of making a process
pub mod state; // what is remembered between two commands, and the gate
pub mod child; // the child's half: from clone to execve, system calls only
pub mod validate; // the rules between the values of config.json, and with the host
pub mod plan; // what will be done, decided before anything is done
pub mod cgroups; // the container's cgroups on v1, hybrid and v2
pub mod bundle; // a bundle's directory and its config.json, decoded
pub mod host; // facts about the host, read once
pub mod users; // names in a container's own passwd and group files
pub mod seal; // keel's own binary, out of a container's reach
pub mod log; // --log, --log-format, --debug
pub mod units; // sizes, durations and times as people write them
pub mod error; // why a command failed, in the words that callers match
pub mod sys; // the system calls: all of keel's unsafe

#[cfg(test)]
mod import_rule; // reads `crate::` in the sources against this list
