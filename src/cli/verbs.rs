//! The verbs: what each takes, how its help explains it, and its definition for clap.

use std::ffi::OsString;

use clap::{ArgMatches, Args, Command, FromArgMatches};

use super::flags::Until;
use crate::{
    checkpoint, create, delete, events, exec, kill, list, mounts, pause, plan_cmd, ps, restore,
    run, spec_cmd, start, update,
};

/// What the caller wants done.
#[derive(Clone, Debug)]
#[expect(missing_docs, reason = "each variant is the verb of its name")]
pub enum Verb {
    Checkpoint(checkpoint::Args),
    Create(create::Args),
    Delete(delete::Args),
    Events(events::Args),
    Exec(exec::Args),
    Features,
    Kill(kill::Args),
    List(list::Args),
    Mounts(mounts::Args),
    Pause(pause::Args),
    Plan(plan_cmd::Args),
    Ps(ps::Args),
    Restore(restore::Args),
    Resume(pause::Args),
    Run(run::Args),
    Spec(spec_cmd::Args),
    Start(start::Args),
    State(list::StateArgs),
    Update(update::Args),
}

/// One verb.
pub struct Row {
    /// What the caller types.
    pub name: &'static str,
    /// One line for the overview and the help.
    pub about: &'static str,
    /// Which words it takes; the first is a container's id if it is called so.
    pub words: Words,
    /// Where its flags end.
    pub until: Until,
    /// What to type, and what that does.
    pub example: &'static str,
    /// Adds its arguments to the definition.
    pub define: fn(Command) -> Command,
    /// Makes the verb of what clap found.
    pub read: fn(&ArgMatches) -> Result<Verb, clap::Error>,
}

/// How many positional words a verb takes.
pub enum Words {
    /// None.
    None,
    /// The id.
    Id,
    /// The id, and from none to this many more.
    IdAnd(usize),
    /// Up to this many, none of them the id in the first place.
    UpTo(usize),
    /// Three words; the second is the id.
    ActionIdFile,
}

fn define<A: Args>(command: Command) -> Command {
    A::augment_args(command)
}

macro_rules! row {
    ($name:literal, $variant:ident($args:ty), $words:expr, $until:ident, $about:literal, $example:literal) => {
        Row {
            name: $name,
            about: $about,
            words: $words,
            until: Until::$until,
            example: $example,
            define: define::<$args>,
            read: |found| <$args>::from_arg_matches(found).map(Verb::$variant),
        }
    };
}

/// The verbs, in alphabetical order. `exec` and `ps` end their flags at the id, because what
/// follows belongs to the command that they run.
pub static VERBS: &[Row] = &[
    row!(
        "checkpoint",
        Checkpoint(checkpoint::Args),
        Words::Id,
        End,
        "Save a running container's processes to files, with CRIU",
        "keel checkpoint --image-path /var/tmp/web web   save web and end it"
    ),
    row!(
        "create",
        Create(create::Args),
        Words::Id,
        End,
        "Create a container; its program waits for start",
        "keel create --bundle /srv/web web   set up web from /srv/web/config.json"
    ),
    row!(
        "delete",
        Delete(delete::Args),
        Words::Id,
        End,
        "Remove what a stopped container left",
        "keel delete --force web   kill web if it runs, then remove it"
    ),
    row!(
        "events",
        Events(events::Args),
        Words::Id,
        End,
        "Print statistics and out-of-memory notices as JSON",
        "keel events --stats web   print once what web uses"
    ),
    row!(
        "exec",
        Exec(exec::Args),
        Words::IdAnd(usize::MAX),
        FirstWord,
        "Run a command in a running container",
        "keel exec --tty web sh   a shell in web"
    ),
    Row {
        name: "features",
        about: "Print what keel can do, as JSON",
        words: Words::None,
        until: Until::End,
        example: "keel features | jq .linux.namespaces   the namespaces it knows",
        define: |command| command,
        read: |_| Ok(Verb::Features),
    },
    row!(
        "kill",
        Kill(kill::Args),
        Words::IdAnd(1),
        End,
        "Send a signal to a container's first process",
        "keel kill web HUP   make web read its configuration again"
    ),
    row!(
        "list",
        List(list::Args),
        Words::None,
        End,
        "List the containers",
        "keel list --quiet   their names alone"
    ),
    row!(
        "mounts",
        Mounts(mounts::Args),
        Words::ActionIdFile,
        End,
        "Add mounts to a running container, or remove them",
        "keel mounts add web data.json   mount what data.json lists"
    ),
    row!(
        "pause",
        Pause(pause::Args),
        Words::Id,
        End,
        "Freeze a container's processes",
        "keel pause web   stop web where it is; resume lets it go on"
    ),
    row!(
        "plan",
        Plan(plan_cmd::Args),
        Words::UpTo(1),
        End,
        "Print what create would do, step by step, without doing it",
        "keel plan /srv/web   every mount, id and limit, in order"
    ),
    row!(
        "ps",
        Ps(ps::Args),
        Words::IdAnd(usize::MAX),
        FirstWord,
        "List the processes of a container",
        "keel ps web -o pid,args   with the columns of the host's ps"
    ),
    row!(
        "restore",
        Restore(restore::Args),
        Words::Id,
        End,
        "Bring back a container from a checkpoint",
        "keel restore --image-path /var/tmp/web --detach web   web runs on"
    ),
    row!(
        "resume",
        Resume(pause::Args),
        Words::Id,
        End,
        "Let a paused container's processes go on",
        "keel resume web   undo keel pause web"
    ),
    row!(
        "run",
        Run(run::Args),
        Words::Id,
        End,
        "Create and start a container, and delete it when it ends",
        "keel run --bundle /srv/web web   exits with the program's exit code"
    ),
    row!(
        "spec",
        Spec(spec_cmd::Args),
        Words::None,
        End,
        "Write a config.json to start from",
        "keel spec --bundle /srv/web   then edit /srv/web/config.json"
    ),
    row!(
        "start",
        Start(start::Args),
        Words::Id,
        End,
        "Let the program of a created container run",
        "keel start web   after keel create web"
    ),
    row!(
        "state",
        State(list::StateArgs),
        Words::Id,
        End,
        "Print a container's state as JSON",
        "keel state web | jq -r .status   created, running, paused or stopped"
    ),
    row!(
        "update",
        Update(update::Args),
        Words::Id,
        End,
        "Change the limits of a container",
        "keel update --memory 256M --pids-limit 100 web   effective at once"
    ),
];

impl Verb {
    /// The exit code if the verb fails: 255 for `exec`, where every smaller number may be the
    /// program's own, and 1 for the others (runc).
    pub fn failure_code(&self) -> u8 {
        if matches!(self, Self::Exec(_)) {
            255
        } else {
            1
        }
    }

    /// What stands before the error if the verb fails: the verbs that callers see fail most say so.
    pub fn failure_prefix(&self) -> &'static str {
        match self {
            Self::Create(_) => "keel create failed: ",
            Self::Run(_) => "keel run failed: ",
            Self::Exec(_) => "exec failed: ",
            _ => "",
        }
    }
}

impl Words {
    /// How many words are wanted, in runc's words, if `given` is not that many.
    pub fn refuse(&self, given: usize) -> Option<String> {
        let (least, most) = match self {
            Self::None => (0, 0),
            Self::Id => (1, 1),
            Self::IdAnd(more) => (1, more.saturating_add(1)),
            Self::UpTo(most) => (0, *most),
            Self::ActionIdFile => (3, 3),
        };
        if least == most && given != least {
            return Some(format!("exactly {least}"));
        }
        if given < least {
            return Some(format!("a minimum of {least}"));
        }
        (given > most).then(|| format!("a maximum of {most}"))
    }

    pub fn id<'a>(&self, words: &'a [OsString]) -> Option<&'a OsString> {
        match self {
            Self::Id | Self::IdAnd(_) => words.first(),
            Self::ActionIdFile => words.get(1),
            Self::None | Self::UpTo(_) => None,
        }
    }
}

pub fn base(name: &'static str) -> Command {
    Command::new(name)
        .no_binary_name(true)
        .disable_help_subcommand(true)
        .disable_help_flag(true)
        .args_override_self(true)
}

/// Lays out a command's help as runc's is: programs look for its headings.
pub fn laid_out(command: Command) -> Command {
    let name = command.get_bin_name().unwrap_or_default();
    let mut layout = format!("NAME:\n   {name} - {{about}}\n\nUSAGE:\n   {{usage}}\n\n");
    if command.get_positionals().next().is_some() {
        layout += "ARGUMENTS:\n{positionals}\n\n";
    }
    if command
        .get_arguments()
        .any(|argument| !argument.is_positional())
    {
        layout += "OPTIONS:\n{options}";
    }
    command.help_template(layout.trim_end().to_owned() + "{after-help}")
}

/// What a verb takes.
pub fn grammar(row: &Row) -> Command {
    (row.define)(base(row.name))
}

/// What a verb takes, and what there is to say about it.
pub fn definition(row: &Row) -> Command {
    let command = grammar(row)
        .about(row.about)
        .bin_name(format!("keel {}", row.name))
        .after_help(format!("EXAMPLE:\n   {}", row.example));
    let command = laid_out(command);
    match row.until {
        Until::End => command,
        Until::FirstWord => command.override_usage(format!(
            "keel {} [OPTIONS] <ID>{}",
            row.name,
            if row.name == "exec" {
                " <COMMAND>..."
            } else {
                " [PS-OPTION]..."
            }
        )),
    }
}
