//! Names of videos, as a caller may write them: relative to the media root, and never out of it.

/// Longest name, in bytes.
const LONGEST: usize = 1_024;

/// The name of a file below the media root. Holding one means that its text leads nowhere else; what the file system
/// makes of it, symbolic links above all, is judged when the file is opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MediaPath(String);

impl MediaPath {
    /// Reads a name. The error says what is wrong with it.
    pub fn parse(text: &str) -> Result<MediaPath, &'static str> {
        if text.is_empty() || text.len() > LONGEST {
            return Err("must be a path of 1 to 1024 bytes");
        }
        if text.chars().any(char::is_control) {
            return Err("must not hold control characters");
        }
        if text.starts_with('/') || text.contains('\\') {
            return Err("must be relative to the media root, with / between its parts");
        }
        if text.split('/').any(|part| matches!(part, "" | "." | "..")) {
            return Err("must not have empty parts, . or ..");
        }
        Ok(MediaPath(text.to_owned()))
    }

    /// The name as it was written.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_leads_below_the_root_is_a_path() {
        for good in ["a.mp4", "ana/clip 1.mov", "-x.mp4", "http:", "concat:a|b", "%d.mp4", "…/ü.mkv", "...", "a..b"]
        {
            assert_eq!(MediaPath::parse(good).map(|path| path.0).as_deref(), Ok(good));
        }
    }

    #[test]
    fn what_leads_elsewhere_is_none() {
        let long = "x".repeat(1_025);
        for bad in ["", "/etc/passwd", "..", "../a", "a/../../b", "a//b", "./a", "a/", "a\\b", "a\nb", "a\0", &long] {
            assert!(MediaPath::parse(bad).is_err(), "{bad:?}");
        }
    }
}
