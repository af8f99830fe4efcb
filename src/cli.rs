//! The words of the command line, one subcommand a file.
//!
//! Owns parsing, how an error is told (one line, and what to do next) and which exit code it becomes.
pub mod agent;
pub mod ban;
pub mod cluster;
pub mod demo;
pub mod dns;
pub mod domains;
pub mod drops;
pub mod error;
pub mod explain;
pub mod import;
pub mod init;
pub mod objects;
pub mod operator;
pub mod output;
pub mod planning;
pub mod render;
pub mod retire;
pub mod tail;
pub mod teardown;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

pub use error::{CliError, Exit};
pub use output::{ColorFlag, OutputFormat};

/// What every subcommand returns when it did what was asked.
pub type CliResult = Result<Exit, CliError>;

/// Who may talk to whom on this node, decided by Kubernetes NetworkPolicies and enforced by the kernel.
#[derive(Debug, Parser)]
#[command(
    name = "podwall",
    version,
    propagate_version = true,
    max_term_width = 110,
    arg_required_else_help = true,
    after_long_help = error::EXIT_CODES
)]
pub struct Cli {
    #[command(flatten)]
    color: ColorFlag,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Agent(Box<agent::Agent>),
    Operator(operator::Operator),
    Dns(dns::Dns),
    Domains(domains::Domains),
    Import(import::Import),
    Init(init::Init),
    Demo(demo::Demo),
    Render(render::Render),
    Explain(explain::Explain),
    Ban(ban::Ban),
    Tail(Box<tail::Tail>),
    Drops(drops::Drops),
    Teardown(teardown::Teardown),
    Retire(retire::Retire),
    #[command(hide = true)]
    Tethered(demo::Tethered),
}

/// Runs the program; the value is its exit code.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    match cli.run() {
        Ok(exit) => exit.into(),
        Err(error) => {
            output::complain(&error);
            error.exit().into()
        }
    }
}

impl Cli {
    fn run(self) -> CliResult {
        self.color.apply();
        self.command.run()
    }
}

impl Command {
    fn run(self) -> CliResult {
        match self {
            Self::Agent(agent) => agent.run(),
            Self::Operator(operator) => operator.run(),
            Self::Dns(dns) => dns.run(),
            Self::Domains(domains) => domains.run(),
            Self::Import(import) => import.run(),
            Self::Init(init) => init.run(),
            Self::Demo(demo) => demo.run(),
            Self::Render(render) => render.run(),
            Self::Explain(explain) => explain.run(),
            Self::Teardown(teardown) => teardown.run(),
            Self::Ban(ban) => ban.run(),
            Self::Tail(tail) => tail.run(),
            Self::Drops(drops) => drops.run(),
            Self::Retire(retire) => retire.run(),
            Self::Tethered(tethered) => tethered.run(),
        }
    }
}
