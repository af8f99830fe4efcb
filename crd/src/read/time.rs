//! When a ban ends.
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use serde_json::{Map, Value};

use super::fields::{Reader, Unclear, field};

/// Units in the order in which they may stand, in seconds.
const UNITS: [(char, i64); 4] = [('d', 86_400), ('h', 3_600), ('m', 60), ('s', 1)];

/// The end of a ban by its spec; `born` is when the object was created, which is what `duration` counts from
/// (decision B2).
pub(super) fn end(
    reader: &mut Reader,
    spec: &Map<String, Value>,
    born: Option<Timestamp>,
) -> Result<Option<Timestamp>, Unclear> {
    match (field(spec, "expiresAt"), field(spec, "duration")) {
        (None, None) => Ok(None),
        (Some(moment), None) => {
            let text = reader.text(moment, "spec.expiresAt")?;
            let moment = text.parse::<Timestamp>();
            moment
                .map(Some)
                .map_err(|_| reader.unclear("spec.expiresAt", "is no time of RFC 3339; nothing is banned"))
        }
        (None, Some(span)) => {
            let text = reader.text(span, "spec.duration")?;
            let Some(span) = duration(text) else {
                let problem =
                    "must be days, hours, minutes and seconds in this order, as 1h30m; nothing is banned";
                return Err(reader.unclear("spec.duration", problem));
            };
            let Some(born) = born else {
                let problem = "counts from metadata.creationTimestamp, which is missing; nothing is banned: use expiresAt";
                return Err(reader.unclear("spec.duration", problem));
            };
            Ok(Some(born.checked_add(span).unwrap_or(Timestamp::MAX)))
        }
        (Some(_), Some(_)) => {
            Err(reader.unclear("spec.duration", "cannot stand beside expiresAt; nothing is banned"))
        }
    }
}

/// When the object was created; files do not say.
pub(super) fn born(raw: &Value) -> Option<Timestamp> {
    raw.get("metadata")?.get("creationTimestamp")?.as_str()?.parse().ok()
}

/// `7d12h30m5s`, each part at most once and in this order, together more than nothing.
fn duration(text: &str) -> Option<SignedDuration> {
    let mut units = UNITS.iter();
    let (mut rest, mut seconds) = (text, 0_i64);
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit())?;
        let (number, tail) = rest.split_at_checked(digits)?;
        let unit = tail.chars().next()?;
        let (_, each) = units.find(|(name, _)| *name == unit)?;
        seconds = seconds.checked_add(number.parse::<i64>().ok()?.checked_mul(*each)?)?;
        rest = tail.get(1..)?;
    }
    (seconds > 0).then(|| SignedDuration::from_secs(seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_add_up_and_nothing_else_is_one() {
        let good = [("7d12h30m5s", 649_805), ("90s", 90), ("1h", 3_600), ("1d1s", 86_401), ("0h1s", 1)];
        for (text, seconds) in good {
            assert_eq!(duration(text), Some(SignedDuration::from_secs(seconds)), "{text}");
        }
        let bad =
            ["", "0s", "1", "h", "1h1h", "1m1h", "-1h", "1.5h", "1 h", "1w", "é", "99999999999999999999s"];
        for text in bad {
            assert_eq!(duration(text), None, "{text}");
        }
    }
}
