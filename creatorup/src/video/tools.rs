//! ffmpeg and ffprobe: where they are, and whether they can do what is asked of them.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::child::Child;

/// How long a question about a program itself may take.
const ASKING: Duration = Duration::from_secs(10);
/// After it was not found, it is looked for again this often.
const AGAIN: Duration = Duration::from_secs(5);
/// What to tell those who have none.
pub const INSTALL: &str = "to process videos, install the Debian package `ffmpeg`, or set FFMPEG_PATH to the program";

/// Where programs are looked for.
#[derive(Clone, Debug, Default)]
pub struct Places {
    /// `FFMPEG_PATH`: the ffmpeg program, or the directory it is in. Then nothing else is looked at.
    pub given: Option<PathBuf>,
    /// `PATH`
    pub path: OsString,
    /// `LD_LIBRARY_PATH`, handed on to them.
    pub library_path: Option<OsString>,
}

/// The programs, once they were found and asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tools {
    /// The ffmpeg program.
    pub ffmpeg: PathBuf,
    /// The ffprobe program.
    pub ffprobe: PathBuf,
    /// What ffmpeg calls its version.
    pub version: String,
    /// Where their libraries are.
    pub library_path: Option<OsString>,
}

/// Finds the programs, and remembers them. Those who install ffmpeg later need not start the service anew.
pub struct Finder {
    places: Places,
    last: Mutex<Option<(Instant, Result<Tools, String>)>>,
}

impl Finder {
    /// Looks for nothing yet.
    pub fn new(places: Places) -> Finder {
        Finder { places, last: Mutex::new(None) }
    }

    /// The programs, or what is missing, for people.
    pub async fn tools(&self) -> Result<Tools, String> {
        if let Some((at, known)) = &*self.last.lock().unwrap_or_else(PoisonError::into_inner)
            && (known.is_ok() || at.elapsed() < AGAIN)
        {
            return known.clone();
        }
        let found = self.places.find().await.map_err(|what| format!("{what}: {INSTALL}"));
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some((Instant::now(), found.clone()));
        found
    }
}

impl Places {
    async fn find(&self) -> Result<Tools, String> {
        let (ffmpeg, ffprobe) = match &self.given {
            Some(given) if given.is_dir() => (program(given, "ffmpeg"), program(given, "ffprobe")),
            // ffprobe stands beside it, or is found like any program.
            Some(given) => {
                let beside = given.parent().and_then(|directory| program(directory, "ffprobe"));
                (absolute(given), beside.or_else(|| self.on_path("ffprobe")))
            }
            None => (self.on_path("ffmpeg"), self.on_path("ffprobe")),
        };
        let ffmpeg = ffmpeg.ok_or("ffmpeg was not found")?;
        let ffprobe = ffprobe.ok_or("ffprobe was not found")?;
        let library_path = self.library_path.clone();
        let ask = async |program: &Path, arguments: &[&str]| -> Result<String, String> {
            let arguments = arguments.iter().map(OsString::from).collect();
            let child = Child { program, arguments, library_path: library_path.as_ref(), limit: ASKING };
            let said =
                child.output().await.map_err(|error| format!("{} cannot be run ({error})", program.display()))?;
            Ok(String::from_utf8_lossy(&said).into_owned())
        };
        let said = ask(&ffmpeg, &["-version"]).await?;
        let version = said.strip_prefix("ffmpeg version ").and_then(|rest| rest.split_whitespace().next());
        let version = version.ok_or_else(|| format!("{} is no ffmpeg", ffmpeg.display()))?.to_owned();
        let encoders = ask(&ffmpeg, &["-nostdin", "-hide_banner", "-encoders"]).await?;
        if !encoders.contains(" libx264 ") {
            return Err(format!("{} was built without libx264", ffmpeg.display()));
        }
        ask(&ffprobe, &["-version"]).await?;
        Ok(Tools { ffmpeg, ffprobe, version, library_path: self.library_path.clone() })
    }

    fn on_path(&self, name: &str) -> Option<PathBuf> {
        self.path.to_str()?.split(':').filter(|part| !part.is_empty()).find_map(|part| program(Path::new(part), name))
    }
}

fn program(directory: &Path, name: &str) -> Option<PathBuf> {
    absolute(&directory.join(name))
}

fn absolute(path: &Path) -> Option<PathBuf> {
    path.is_file().then(|| std::path::absolute(path).ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn without_the_programs_the_answer_names_what_to_install() {
        let nowhere = tempfile::tempdir().unwrap();
        for given in [None, Some(nowhere.path().to_owned()), Some(nowhere.path().join("ffmpeg"))] {
            let finder = Finder::new(Places { given, path: nowhere.path().into(), library_path: None });
            let missing = finder.tools().await.unwrap_err();
            assert!(missing.contains("`ffmpeg`") && missing.contains("FFMPEG_PATH"), "{missing}");
        }
    }

    #[tokio::test]
    async fn a_program_that_is_no_ffmpeg_is_none() {
        let places = Places { given: Some("/bin/echo".into()), path: "/bin:/usr/bin".into(), library_path: None };
        let missing = Finder::new(places).tools().await.unwrap_err();
        assert!(missing.contains("is no ffmpeg") || missing.contains("ffprobe was not found"), "{missing}");
    }
}
