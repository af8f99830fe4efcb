//! Where `render` and `explain` take the cluster from: manifests, or a live API server.
//!
//! Owns reading everything once into a [`Cluster`]. What each object means is the engine's business.
pub mod live;

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use clap::Args;
use podwall_engine::{Change, Cluster, Warning, ingest};
use podwall_ruleset::Deadline;
use serde_json::Value;

use super::CliError;
use crate::manifests::{self, Identity, Manifest, ManifestError, Place, Twice};

/// Flags that say where the cluster is read from.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Where the objects come from")]
pub struct ObjectSource {
    /// Manifests: files, folders, or `-` for standard input; none: the live cluster is asked
    #[arg(value_name = "FILE|DIR")]
    paths: Vec<PathBuf>,
    /// Ask the API server this file names; default: $KUBECONFIG, ~/.kube/config, then in-cluster
    #[arg(long, value_name = "FILE", conflicts_with = "paths")]
    kubeconfig: Option<PathBuf>,
    /// Use this context of the kubeconfig
    #[arg(long, value_name = "NAME", conflicts_with = "paths")]
    context: Option<String>,
}

/// A cluster as it was found.
#[derive(Debug, Default)]
pub struct World {
    /// Everything podwall has a use for.
    pub cluster: Cluster,
    /// What was closed because it could not be understood, and objects left out.
    pub warnings: Vec<Warning>,
    /// What was read from manifests, and where.
    read: BTreeMap<Identity, (Place, Change)>,
}

impl ObjectSource {
    /// Reads everything once.
    pub fn load(&self) -> Result<World, CliError> {
        let mut world = World::default();
        // Bans that are over are nobody's.
        world.cluster.apply(Change::Clock(now()));
        if self.paths.is_empty() {
            let objects = live::list(self.kubeconfig.as_deref(), self.context.clone())?;
            objects.iter().for_each(|object| world.take(object));
        } else {
            for path in &self.paths {
                world.read(path)?;
            }
        }
        Ok(world)
    }
}

impl World {
    /// Takes in the manifests of a file, a folder, or standard input (`-`).
    pub fn read(&mut self, path: &Path) -> Result<(), CliError> {
        read_all(path)?.iter().try_for_each(|manifest| self.take_once(manifest)).map_err(unread)
    }

    /// The same object twice does no harm; two objects under one name do: the agent would take the first.
    fn take_once(&mut self, Manifest { place, object }: &Manifest) -> Result<(), ManifestError> {
        if let Ok(Some((change, _))) = ingest::object(object) {
            let identity = Identity::of(object);
            match self.read.get(&identity) {
                Some((_, known)) if *known == change => return Ok(()),
                Some((first, _)) => {
                    let (first, second) = (first.clone(), place.clone());
                    return Err(Box::new(Twice { identity, first, second }).into());
                }
                None => drop(self.read.insert(identity, (place.clone(), change))),
            }
        }
        self.take(object);
        Ok(())
    }

    /// Takes in manifests that were read already; later ones take the place of earlier ones.
    pub fn take_all(&mut self, manifests: &[Manifest]) {
        manifests.iter().for_each(|manifest| self.take(&manifest.object));
    }

    /// Takes in one object; what has no name is left out and reported.
    fn take(&mut self, object: &Value) {
        match ingest::object(object) {
            Ok(None) => {}
            Ok(Some((change, warnings))) => {
                self.cluster.apply(change);
                self.warnings.extend(warnings);
            }
            Err(warning) => self.warnings.push(warning),
        }
    }
}

/// The manifests of a file, a folder, or standard input (`-`).
pub fn read_all(path: &Path) -> Result<Vec<Manifest>, CliError> {
    if path == Path::new("-") { standard_input() } else { manifests::read(path).map_err(unread) }
}

fn now() -> Deadline {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Deadline(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

fn standard_input() -> Result<Vec<Manifest>, CliError> {
    let mut text = String::new();
    std::io::stdin()
        .read_to_string(&mut text)
        .map_err(|error| CliError::io("reading standard input", error))?;
    // JSON is YAML too, so one reader serves both when no ending tells.
    manifests::parse(Path::new("standard input"), &text).map_err(unread)
}

fn unread(error: ManifestError) -> CliError {
    CliError::Input { doing: "reading manifests".to_owned(), source: Box::new(error) }
}
