//! The attack suite: what has broken out of containers before, tried on keel.
//!
//! A case is an attack with its oracle, and a control: a runtime without that defence, on which the
//! same attack must succeed, else it proves nothing. Ids are those of the catalogue in
//! `docs/security.md`, which is the scoreboard: `KEEL_SCOREBOARD=write cargo test -p integration
//! --test attacks scoreboard` writes it anew from what the runtimes on this machine do, in about ten
//! minutes; `KEEL_SCOREBOARD=B8,D7` writes these rows alone.
//! `KEEL_ATTACKS=full` gives races and sweeps their long mode.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use integration::{Bundle, Run, Runtime, binary_under_test};

mod cgroups;
mod descriptors;
mod identity;
mod mounts;
mod procfs;
mod state;
mod systemd;
mod terminal;

/// What an attack has come to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Nothing was reached; says how it ended.
    Contained(String),
    /// Something was; says what.
    Bitten(String),
}

/// On whom an attack must succeed.
#[derive(Clone, Copy)]
pub enum Control {
    /// Debian's runc 1.1.5, which is known to be open to it.
    Runc,
    /// `naive-runtime` beside this file.
    Naive,
    /// The runtime under test with the defence left out of config.json.
    Undefended(fn(&Victim) -> Outcome),
}

/// One attack.
#[derive(Clone, Copy)]
pub struct Case {
    /// As in the catalogue.
    pub id: &'static str,
    /// Where it was first seen.
    pub seen: &'static str,
    /// What is tried.
    pub what: &'static str,
    /// Tries it.
    pub attack: fn(&Victim) -> Outcome,
    /// Where it succeeds.
    pub control: Control,
}

/// The runtime that is attacked.
pub struct Victim {
    name: &'static str,
    binary: PathBuf,
}

impl Victim {
    fn keel() -> Self {
        Self {
            name: "keel",
            binary: binary_under_test().clone(),
        }
    }

    fn installed(name: &'static str) -> Self {
        let dirs = ["/usr/sbin", "/usr/bin"].map(|dir| Path::new(dir).join(name));
        let found = dirs.iter().find(|path| path.exists());
        Self {
            name,
            binary: found.unwrap_or(&dirs[0]).clone(),
        }
    }

    fn naive() -> Self {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/attacks/naive-runtime");
        Self {
            name: "naive",
            binary: source,
        }
    }

    /// Whether it starts the suite's plainest container on this machine.
    fn starts_anything(&self) -> bool {
        let arena = self.arena();
        arena.run(&arena.bundle()).code == 0
    }

    /// A place for the attack. What is under test must leave the host as it was.
    pub fn arena(&self) -> Arena {
        Arena::new(match self.name {
            "keel" => Runtime::new(),
            _ => Runtime::victim(&self.binary),
        })
    }

    /// An arena whose runtime is a copy of the binary, and that copy: it may be overwritten.
    pub fn sacrifice(&self, dir: &Path) -> (Arena, PathBuf) {
        let copy = dir.join(self.binary.file_name().expect("a program has a name"));
        fs::copy(&self.binary, &copy).expect("the temporary directory is writable");
        let mut target = copy.clone();
        if self.name == "naive" {
            target = dir.join("nsenter");
            fs::copy("/usr/bin/busybox", &target).expect("the temporary directory is writable");
        }
        (Arena::new(Runtime::victim(&copy)), target)
    }
}

/// A runtime, and a directory of the host that containers must not reach.
pub struct Arena {
    /// The runtime that is attacked.
    pub runtime: Runtime,
    /// A directory of the host.
    pub canary: PathBuf,
    before: BTreeMap<PathBuf, String>,
}

/// What only the host can know.
pub const SECRET: &str = "the canary sings";

impl Arena {
    fn new(runtime: Runtime) -> Self {
        let canary = runtime.dir().join("canary");
        fs::create_dir(&canary).expect("the scratch directory is writable");
        for name in ["secret", "ptmx", "null", "hosts"] {
            fs::write(canary.join(name), SECRET).expect("the scratch directory is writable");
        }
        fs::create_dir(canary.join("deep")).expect("the scratch directory is writable");
        fs::set_permissions(&canary, fs::Permissions::from_mode(0o700)).expect("we own it");
        let before = look(&canary);
        Self {
            runtime,
            canary,
            before,
        }
    }

    /// A new bundle.
    pub fn bundle(&self) -> Bundle {
        self.runtime.bundle()
    }

    /// `run` in the foreground.
    pub fn run(&self, bundle: &Bundle) -> Run {
        self.runtime.run(bundle)
    }

    /// Contained if the canary is as it was.
    pub fn canary_lives(&self, run: &Run) -> Outcome {
        let now = look(&self.canary);
        let changed = |path: &PathBuf| now.get(path) != self.before.get(path);
        let mut paths = self.before.keys().chain(now.keys());
        match paths.find(|path| changed(path)) {
            Some(path) => {
                let name = path.strip_prefix(&self.canary).unwrap_or(path).display();
                Outcome::Bitten(format!("{name:?} of the host changed"))
            }
            None => ended(run),
        }
    }

    /// Contained if the container has not printed the secret.
    pub fn secret_is_kept(&self, run: &Run) -> Outcome {
        match run.stdout.contains(SECRET) {
            true => Outcome::Bitten("it read a file of the host".into()),
            false => self.canary_lives(run),
        }
    }
}

/// Contained, in the way in which `run` has ended.
pub fn ended(run: &Run) -> Outcome {
    Outcome::Contained(match run.code {
        0 => "confined".into(),
        _ => "refused".into(),
    })
}

/// Bitten if `bad` holds, with that reason.
pub fn unless(bad: bool, why: &str, run: &Run) -> Outcome {
    match bad {
        true => Outcome::Bitten(why.into()),
        false => ended(run),
    }
}

/// Inode, mode, owner, size and contents of everything below `dir`.
fn look(dir: &Path) -> BTreeMap<PathBuf, String> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(dir).expect("the canary is there").flatten() {
        let path = entry.path();
        let stat = fs::symlink_metadata(&path).expect("nobody removes it meanwhile");
        let contents = match stat.is_file() {
            true => fs::read_to_string(&path).unwrap_or_default(),
            false => String::new(),
        };
        let (ino, mode, uid) = (stat.ino(), stat.mode(), stat.uid());
        found.insert(path.clone(), format!("{ino} {mode:o} {uid} {contents}"));
        if stat.is_dir() {
            found.extend(look(&path));
        }
    }
    found
}

/// Whether races and sweeps are to take their time.
pub fn long_mode() -> bool {
    std::env::var_os("KEEL_ATTACKS").is_some_and(|mode| mode == "full")
}

/// The rounds of a race of many starts. Others than keel are raced for the scoreboard only, until they
/// lose: a few do not show much.
pub fn rounds(victim: &Victim) -> usize {
    match victim.name {
        _ if long_mode() => 10_000,
        "runc" => 300,
        _ => 15,
    }
}

/// Runs `attack` while `swap` is exchanged for `decoy`, again and again, by another thread.
pub fn racing<T>(swap: &Path, decoy: &Path, attack: impl FnOnce() -> T) -> T {
    use std::sync::atomic::{AtomicBool, Ordering};
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                let flag = nix::fcntl::RenameFlags::RENAME_EXCHANGE;
                let dir = nix::fcntl::AT_FDCWD;
                // The runtime may hold one of them for a moment.
                let _ = nix::fcntl::renameat2(dir, swap, dir, decoy, flag);
            }
        });
        let result = attack();
        over.store(true, Ordering::Relaxed);
        result
    })
}

const ALL: &[&[Case]] = &[
    descriptors::CASES,
    mounts::CASES,
    procfs::CASES,
    identity::CASES,
    terminal::CASES,
    cgroups::CASES,
    state::CASES,
];

fn cases() -> impl Iterator<Item = &'static Case> {
    ALL.iter().flat_map(|cases| cases.iter())
}

/// What the control has come to.
fn control(case: &Case) -> Outcome {
    match case.control {
        Control::Runc => (case.attack)(&Victim::installed("runc")),
        Control::Naive => (case.attack)(&Victim::naive()),
        Control::Undefended(attack) => attack(&Victim::keel()),
    }
}

/// Runs the case with this id on the runtime under test and on its control.
///
/// # Panics
/// If it is not contained, or the control does not bite.
fn check(id: &str) {
    let case = cases()
        .find(|case| case.id == id)
        .expect("a case of the catalogue");
    let outcome = (case.attack)(&Victim::keel());
    let contained = matches!(outcome, Outcome::Contained(_));
    assert!(contained, "{id}: {}: {outcome:?}", case.what);
    let outcome = control(case);
    let bitten = matches!(outcome, Outcome::Bitten(_));
    assert!(bitten, "{id}: the control does not bite: {outcome:?}");
}

/// A test for each case, so that they run side by side and fail by their own names.
macro_rules! tests {
    ($($name:ident $id:literal)*) => {
        $(#[test] fn $name() { check($id); })*
        const TESTED: &[&str] = &[$($id),*];
    };
}

tests! {
    exec_shows_nothing_of_the_host_to_its_peers "A1"
    the_runtime_s_own_binary_cannot_be_written "A2"
    a_leaked_directory_is_no_way_out "A3"
    no_descriptor_is_left_over "A4"
    exec_finds_no_procfs_of_the_container "A5"
    no_tool_of_the_image_is_executed "A6"
    an_opened_source_is_what_is_bound "B1"
    a_mount_is_not_moved_out_by_a_swapped_parent "B2"
    procfs_is_not_replaced "B3"
    a_mount_point_is_not_made_outside "B4"
    a_mask_is_not_a_file_of_the_image "B5"
    dev_as_a_link_leads_nowhere "B7"
    a_path_is_read_only_in_one_step "B8"
    the_working_directory_is_made_inside "B9"
    kernel_files_are_not_writable "B10"
    mounts_do_not_reach_the_host "B11"
    a_sysctl_is_not_written_to_a_decoy "C2"
    a_sysctl_of_the_host_is_refused "C3"
    capabilities_are_those_of_the_list "D1"
    a_user_gets_no_ambient_capabilities "D2"
    a_user_of_digits_is_a_number "D3"
    groups_of_the_caller_are_dropped "D4"
    a_passwd_that_blocks_blocks_nobody "D5"
    all_arguments_of_a_rule_must_match "D6"
    an_error_is_no_command_for_a_terminal "D7"
    a_filter_holds_for_every_abi "D8"
    a_call_newer_than_the_profile_is_missing "D9"
    console_is_no_link "B6"
    nothing_is_typed_into_the_caller_s_terminal "E1"
    the_caller_s_session_keyring_is_left "E2"
    standard_streams_of_the_host_keep_their_owner "E3"
    release_agents_are_out_of_reach "F1"
    systemd_does_nothing_for_an_annotation "F3"
    a_cgroup_path_stays_below_the_root "F4"
    a_long_message_is_no_short_one "F5"
    devices_are_denied "F6"
    a_fork_bomb_is_limited_from_its_first_instruction "F7"
    no_abstract_socket_is_left_open "G1"
    state_is_not_for_everybody "G2"
    an_id_is_no_path "G4"
    a_hook_does_not_get_the_container_s_environment "G6"
    executing_the_runtime_gives_no_rights "G7"
    a_recycled_pid_gets_no_signal "G8"
    no_json_is_a_crash "G9"
}

#[test]
fn every_case_has_a_test() {
    let ids: Vec<&str> = cases().map(|case| case.id).collect();
    assert_eq!(ids, TESTED);
}

fn scoreboard_file() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/security.md")
}

const HEADER: &str = "| id | first seen | attack | keel | control | runc 1.1.5 | crun 1.8.1 |";

/// The scoreboard names every case and no other, and says of each that it is contained.
#[test]
fn the_scoreboard_is_complete() {
    if let Ok(rows) = std::env::var("KEEL_SCOREBOARD") {
        write_scoreboard(&rows);
    }
    let text =
        fs::read_to_string(scoreboard_file()).expect("docs/security.md is in the repository");
    let rows = text.lines().skip_while(|line| *line != HEADER).skip(2);
    let rows: Vec<&str> = rows.take_while(|line| line.starts_with('|')).collect();
    assert_eq!(
        rows.len(),
        cases().count(),
        "KEEL_SCOREBOARD=write brings it up to date"
    );
    for (case, row) in cases().zip(rows) {
        let start = format!("| {} | {} | {} | contained", case.id, case.seen, case.what);
        assert!(row.starts_with(&start), "{row}\nis not about\n{start}");
    }
}

/// Debian's crun starts nothing where both versions of cgroups are mounted. The tree that this thread's
/// children see then has no controllers on such a machine.
fn show_cgroup_v2_only() {
    integration::isolate();
    let (kind, none): (_, Option<&str>) = (Some("cgroup2"), None);
    let flags = nix::mount::MsFlags::empty();
    nix::mount::mount(kind, "/sys/fs/cgroup", kind, flags, none).expect("the kernel has cgroup v2");
}

/// `rows` are the ids of those to be written anew, with commas; or "write", for all.
fn write_scoreboard(rows: &str) {
    let file = scoreboard_file();
    let old = fs::read_to_string(&file).unwrap_or_default();
    let is_wanted = |id: &str| rows == "write" || rows.split(',').any(|row| row == id);
    let cell = |attack: fn(&Victim) -> Outcome, victim: Victim| {
        if !victim.binary.exists() {
            return "not installed".to_owned();
        }
        // Where nothing runs, nothing is contained.
        let outcome = std::thread::spawn(move || {
            let foreign = !matches!(victim.name, "keel" | "naive");
            if victim.name == "crun" {
                show_cgroup_v2_only();
            }
            (!foreign || victim.starts_anything()).then(|| attack(&victim))
        });
        match outcome.join() {
            Ok(None) => "does not run here".to_owned(),
            Ok(Some(Outcome::Contained(how))) => format!("contained: {how}"),
            Ok(Some(Outcome::Bitten(how))) => format!("**bitten**: {how}"),
            Err(_) => "cannot be tried".to_owned(),
        }
    };
    let mut table = format!("{HEADER}\n|---|---|---|---|---|---|---|\n");
    for case in cases() {
        let start = format!("| {} | {} |", case.id, case.seen);
        let row = old.lines().find(|line| line.starts_with(&start));
        if let Some(row) = row.filter(|_| !is_wanted(case.id)) {
            table += &format!("{row}\n");
            continue;
        }
        let of = |victim| cell(case.attack, victim);
        let control = match case.control {
            Control::Runc => "runc 1.1.5 is bitten".to_owned(),
            Control::Naive => format!("naive-runtime {}", of(Victim::naive())),
            Control::Undefended(attack) => {
                format!("keel without it {}", cell(attack, Victim::keel()))
            }
        };
        let (keel, runc) = (of(Victim::keel()), of(Victim::installed("runc")));
        let crun = match case.id {
            // Where it runs there is no controller of processes.
            "F7" => "cannot be tried".to_owned(),
            _ => of(Victim::installed("crun")),
        };
        table += &format!(
            "| {} | {} | {} | {keel} | {control} | {runc} | {crun} |\n",
            case.id, case.seen, case.what
        );
    }
    let (head, tail) = old.split_once(HEADER).unwrap_or((&old, ""));
    let tail: Vec<&str> = tail
        .lines()
        .skip_while(|line| line.starts_with('|') || line.is_empty())
        .collect();
    let text = format!("{head}{table}\n{}\n", tail.join("\n"));
    fs::write(&file, text).expect("the repository is writable");
}
