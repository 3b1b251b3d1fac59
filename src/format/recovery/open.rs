//! Open segments: the end of the log. Their entries come right after those of the segment before.

use super::{Planner, SegmentFile, Step};
use crate::base::Index;
use crate::format::{Class, FormatError, names};

impl Planner<'_> {
    /// Takes what is good of the open segments; each becomes a closed one or goes.
    pub(super) fn open(&mut self) -> Result<(), FormatError> {
        for file in &self.log.open {
            if file.unused() {
                self.unlink(&file.name);
            } else if let Some(why) = self.cut_off.clone() {
                if !self.settings.auto_recovery {
                    let text =
                        format!("{}; {} follows and has no certain place in the log", why.text, file.name);
                    return Err(FormatError::new(why.class, text));
                }
                self.put_aside(&file.name, &format!("no certain place in the log: {}", why.text));
            } else {
                self.take_open(file)?;
            }
        }
        Ok(())
    }

    fn take_open(&mut self, file: &SegmentFile) -> Result<(), FormatError> {
        let defect =
            file.end.clone().err().map(|error| error.within(&format!("load open segment {}: ", file.name)));
        if !file.format_good {
            let defect = defect.unwrap_or_else(|| FormatError::new(Class::Corrupt, String::new()));
            if defect.class != Class::Corrupt || !self.settings.auto_recovery {
                return Err(defect);
            }
            self.put_aside(&file.name, &defect.text);
            self.cut_off = Some(defect);
            return Ok(());
        }
        if let Some(defect) = defect.clone().filter(|_| file.malformed()) {
            // Written as it is, by something that knows more than we do: not ours to throw away.
            return Err(defect);
        }
        let why = defect.as_ref().map_or("", |defect| &defect.text).to_owned();
        if file.entries.is_empty() {
            if file.good_batch_after {
                self.put_aside(&file.name, &why);
            } else {
                self.unlink(&file.name);
            }
        } else {
            self.close(file, &why)?;
        }
        if !file.tail_zero {
            let defect = defect.unwrap_or_else(|| FormatError::new(Class::Corrupt, why.clone()));
            self.plan.notes.push(format!("the log ends within {}: {}", file.name, file.defect()));
            self.cut_off = Some(defect);
        }
        Ok(())
    }

    fn close(&mut self, file: &SegmentFile, why: &str) -> Result<(), FormatError> {
        let first = self.next();
        let last = Index(self.plan.last_index().0.saturating_add(file.entries.len() as u64));
        let to = names::closed_name(first, last);
        if self.log.closed.iter().any(|segment| segment.file.name == to) {
            let text =
                format!("load open segment {}: it would become {to}, which is there already", file.name);
            return Err(FormatError::new(Class::Corrupt, text));
        }
        if file.good_batch_after {
            self.copy_aside(&file.name, why);
        }
        self.plan.steps.push(Step::Cut { name: file.name.clone(), len: file.used, to });
        self.take(file, file.entries.len());
        Ok(())
    }
}
