//! `vultus gallery`: look at galleries and erase from them, over the store, while no server has it open.

use std::sync::Arc;

use clap::{ArgGroup, Subcommand};
use serde_json::json;

use super::{Failure, Outcome, Shared};
use crate::{
    config::Config,
    domain::{ExtractionVersion, GalleryName, ReferenceId, SubjectId},
    gallery::{Description, Galleries, Gallery, Selector},
};

#[derive(Debug, Subcommand)]
pub enum Options {
    /// Counts, model and epoch of one gallery, or of all.
    Describe { name: Option<String> },
    /// Erases a subject or one reference, for ever: from the store, the index and all candidate lists.
    #[command(group(ArgGroup::new("selector").required(true).args(["subject", "reference"])))]
    Erase {
        name: String,
        /// All references of this subject.
        #[arg(long)]
        subject: Option<String>,
        /// The reference of this id.
        #[arg(long)]
        reference: Option<String>,
    },
}

pub fn run(options: &Options, shared: &Shared) -> Result<Outcome, Failure> {
    if !Galleries::were_made_in(&shared.galleries_dir()) {
        return Err(format!("{} holds no galleries", shared.data.display()).into()); // looking makes none
    }
    super::runtime()?.block_on(async {
        let galleries = shared.galleries(&shared.root_key()?, &Config::load(None)?, None)?;
        let outcome = match options {
            Options::Describe { name } => describe(&galleries, name.as_deref(), shared.json),
            Options::Erase { name, subject, reference } => match selector(subject.as_deref(), reference.as_deref()) {
                Ok(selector) => erase(&galleries, name, selector, shared.json).await,
                Err(failure) => Err(failure),
            },
        };
        galleries.close().await;
        outcome
    })
}

fn selector(subject: Option<&str>, reference: Option<&str>) -> Result<Selector, Failure> {
    match (subject, reference) {
        (Some(subject), None) => Ok(Selector::Subject(SubjectId::new(subject)?)),
        (None, Some(reference)) => Ok(Selector::Reference(ReferenceId::parse(reference)?)),
        _ => Err("expected --subject or --reference: there is no selector for everything".into()),
    }
}

fn named(galleries: &Galleries, name: &str) -> Result<Arc<Gallery>, Failure> {
    galleries.get(&GalleryName::new(name)?).ok_or_else(|| format!("there is no gallery {name}").into())
}

fn describe(galleries: &Galleries, name: Option<&str>, as_json: bool) -> Result<Outcome, Failure> {
    let chosen = match name {
        Some(name) => vec![named(galleries, name)?],
        None => galleries.list(),
    };
    let described: Vec<Description> = chosen.iter().map(|gallery| gallery.describe()).collect();
    if as_json {
        let of = |d: &Description| {
            json!({
                "name": d.name.as_str(), "subjects": d.subjects, "references": d.references, "indexed": d.indexed,
                "dimension": d.dimension, "epoch": d.epoch, "model": d.model.to_string(), "extractions": extractions(d),
            })
        };
        println!("{}", json!({ "galleries": described.iter().map(of).collect::<Vec<_>>() }));
        return Ok(Outcome::Good);
    }
    println!("{:<20} {:>9} {:>10} {:>9}  model", "gallery", "subjects", "references", "epoch");
    for d in described {
        println!("{:<20} {:>9} {:>10} {:>9}  {}", d.name.as_str(), d.subjects, d.references, d.epoch, d.model);
        for (version, references) in &d.extractions {
            println!("{:<20} {references:>20} {:>9}  extraction {version}", "", "");
        }
    }
    Ok(Outcome::Good)
}

/// How the faces of references were found, and of how many each.
fn extractions(described: &Description) -> Vec<serde_json::Value> {
    let of = |(version, references): &(ExtractionVersion, usize)| json!({ "version": version.to_string(), "references": references });
    described.extractions.iter().map(of).collect()
}

async fn erase(galleries: &Galleries, name: &str, selector: Selector, as_json: bool) -> Result<Outcome, Failure> {
    let erased = named(galleries, name)?.erase(selector).await?;
    if as_json {
        println!("{}", json!({ "gallery": name, "erased": erased.references, "epoch": erased.epoch }));
    } else {
        println!("{name}: {} reference(s) erased", erased.references);
    }
    Ok(if erased.references > 0 { Outcome::Good } else { Outcome::Negative })
}
