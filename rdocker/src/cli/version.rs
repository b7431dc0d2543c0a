//! `rdocker version`

use serde_json::{Value, json};

use crate::error::Result;
use crate::host::Host;
use crate::image::platform::Platform;
use crate::ui::Ui;
use crate::ui::list::Columns;
use crate::ui::template::Template;

use super::context::DEFAULT;

/// Newest Engine API this engine speaks.
pub const API_VERSION: &str = "1.51";
/// Oldest Engine API this engine speaks.
pub const MIN_API_VERSION: &str = "1.24";

/// The commit that this program was made from.
pub const COMMIT: &str = match option_env!("KEEL_COMMIT") {
    Some(commit) => commit,
    None => "unknown",
};

/// Show the Docker version information
#[derive(Debug, clap::Args)]
pub struct Version {
    /// Format output using a Go template, or 'json'
    #[arg(short, long, value_name = "TEMPLATE")]
    format: Option<String>,
}

impl Version {
    /// Prints the client and the engine it contains.
    pub fn run(self, _host: &Host, ui: &mut Ui) -> Result<()> {
        let data = facts();
        if let Some(format) = self.format {
            let format = if format == "json" {
                "{{json .}}"
            } else {
                &format
            };
            return ui.line(Template::parse(format)?.render(&data)?);
        }
        ui.line("Client: rdocker")?;
        let client = &data["Client"];
        let rows = [
            ("Version", "Version"),
            ("API version", "ApiVersion"),
            ("Git commit", "GitCommit"),
            ("OS/Arch", "OsArch"),
            ("Context", "Context"),
        ];
        for (label, key) in rows {
            let value = match key {
                "OsArch" => format!("{}/{}", text(&client["Os"]), text(&client["Arch"])),
                key => text(&client[key]),
            };
            ui.line(format_args!(" {:<18}{value}", format!("{label}:")))?;
        }
        let server = &data["Server"];
        ui.line("\nServer: rdocker engine (in process, no daemon)\n Engine:")?;
        ui.line(format_args!(
            "  {:<17}{}",
            "Version:",
            text(&server["Version"])
        ))?;
        let range = format!(
            "{} (minimum version {})",
            text(&server["ApiVersion"]),
            text(&server["MinAPIVersion"])
        );
        ui.line(format_args!("  {:<17}{range}", "API version:"))?;
        ui.line(format_args!("  {:<17}{COMMIT}", "Git commit:"))?;
        let platform = format!("{}/{}", text(&server["Os"]), text(&server["Arch"]));
        ui.line(format_args!("  {:<17}{platform}", "OS/Arch:"))?;
        ui.line(format_args!(
            "  {:<17}{}",
            "Kernel Version:",
            text(&server["KernelVersion"])
        ))
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

/// Go's name of this machine's architecture, as image configurations spell it.
pub fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}
/// Show the builder's version
#[derive(Debug, clap::Args)]
pub struct BuilderVersion {}

impl BuilderVersion {
    /// It is ours.
    pub fn run(self, ui: &mut Ui) -> Result<()> {
        ui.line(format_args!("rdocker {}", env!("CARGO_PKG_VERSION")))
    }
}

const BUILDERS: Columns = Columns {
    template: "{{.Name}}\t{{.DriverEndpoint}}\t{{.Status}}\t{{.Platforms}}",
    headers: &[("Name", "NAME/NODE"), ("DriverEndpoint", "DRIVER/ENDPOINT")],
};

/// List builder instances: there is one
#[derive(Debug, clap::Args)]
pub struct BuilderLs {
    /// Format output: 'table', 'table TEMPLATE', 'json' or a Go template
    #[arg(long, value_name = "TEMPLATE")]
    format: Option<String>,
}

impl BuilderLs {
    /// The one that is always there.
    pub fn run(self, ui: &mut Ui) -> Result<()> {
        let row = json!({
            "Name": "default*", "DriverEndpoint": "rdocker", "Status": "running",
            "Platforms": Platform::host().to_string(),
        });
        BUILDERS.show(ui, self.format.as_deref(), &[row])
    }
}

fn facts() -> Value {
    let version = env!("CARGO_PKG_VERSION");
    let kernel = nix::sys::utsname::uname()
        .map(|names| names.release().to_string_lossy().into_owned())
        .unwrap_or_default();
    let common = json!({
        "Version": version, "ApiVersion": API_VERSION, "Os": "linux", "Arch": architecture(),
        "Platform": {"Name": "rdocker"}, "GitCommit": COMMIT,
        // Neither is known: no Go made this, and the same source makes the same program at any time.
        "GoVersion": "", "BuildTime": "",
    });
    let mut client = common.clone();
    client["DefaultAPIVersion"] = API_VERSION.into();
    client["Context"] = DEFAULT.into();
    let mut server = common;
    server["MinAPIVersion"] = MIN_API_VERSION.into();
    server["KernelVersion"] = kernel.into();
    server["Components"] = json!([{
        "Name": "Engine",
        "Version": version,
        "Details": {
            "ApiVersion": API_VERSION, "MinAPIVersion": MIN_API_VERSION, "Os": "linux",
            "Arch": architecture(), "KernelVersion": server["KernelVersion"],
            "GitCommit": COMMIT, "GoVersion": "", "BuildTime": "", "Experimental": "false",
        },
    }]);
    json!({"Client": client, "Server": server})
}
