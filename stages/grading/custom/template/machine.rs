//! Inserts bounds between the instructions of a compiled template. Matches every instruction of the pinned crate
//! by name, so that an upgrade with a new one does not compile unreviewed.
//!
//! The crate counts steps, and a step may make a text of any length: a loop that doubles one needs thirty.
//! So every value that is made, kept or read also passes a filter of [`super::limits`], under names that no
//! template can spell.

use minijinja::Value;
use minijinja::machinery::{Instruction, Instructions};

use super::limits::{JOINED, KEPT, MADE, SEEN, TIMES, weight};

/// The crate's mark for a filter whose lookup it does not remember.
const NOT_REMEMBERED: u8 = !0;

/// The most starred lists in one list or call: the crate unpacks all of them before anything is counted.
const MOST_UNPACKED: usize = 8;

/// Bytes of a constant that a step pays for.
const SMALL: u64 = 4096;

fn filter(name: &'static str, arguments: u16) -> Instruction<'static> {
    Instruction::ApplyFilter(name, Some(arguments), NOT_REMEMBERED)
}

/// The same program with bounds. Jumps keep their targets.
pub(super) fn bounded<'source>(old: &Instructions<'source>) -> Instructions<'source> {
    let (mut places, mut all) = (vec![], vec![]);
    for number in 0.. {
        places.push(u32::try_from(all.len()).unwrap_or(u32::MAX));
        let Some(instruction) = old.get(number) else { break };
        let line = old.get_line(number).and_then(|line| u16::try_from(line).ok());
        all.extend(guarded(instruction).into_iter().map(|guarded| (guarded, line)));
    }
    let mut new = Instructions::new(old.name(), old.source());
    for (mut instruction, line) in all {
        if let Some(target) = target(&mut instruction) {
            *target = places.get(*target as usize).copied().unwrap_or(u32::MAX);
        }
        match line {
            Some(line) => new.add_with_line(instruction, line),
            None => new.add(instruction),
        };
    }
    new
}

/// Where an instruction may jump to.
fn target<'a>(instruction: &'a mut Instruction<'_>) -> Option<&'a mut u32> {
    match instruction {
        Instruction::Iterate(target)
        | Instruction::Jump(target)
        | Instruction::JumpIfFalse(target)
        | Instruction::JumpIfFalseOrPop(target)
        | Instruction::JumpIfTrueOrPop(target)
        | Instruction::BuildMacro(_, target, _) => Some(target),
        _ => None,
    }
}

/// The line of the first instruction that no template may have, and the reason.
pub(super) fn refused(all: &Instructions<'_>) -> Option<(usize, &'static str)> {
    use Instruction::{CallMethod, ExportLocals, Include, LoadBlocks, UnpackLists};
    for number in 0.. {
        let why = match all.get(number)? {
            Include(_) | LoadBlocks | ExportLocals => {
                "include, import and extends need other templates, and there are none"
            }
            // The crate divides by the number of arguments.
            CallMethod("cycle", None | Some(1)) => {
                "cycle needs its values one by one, and at least one"
            }
            UnpackLists(count) if *count > MOST_UNPACKED => "more than 8 lists unpacked at once",
            _ => continue,
        };
        return Some((all.get_line(number).unwrap_or(1), why));
    }
    None
}

/// An instruction, and what goes before and after it.
fn guarded<'source>(instruction: &Instruction<'source>) -> Vec<Instruction<'source>> {
    use Instruction as I;
    let own = instruction.clone();
    match instruction {
        // Emitted as a value, so that the formatter counts it; marked as safe, since it is the template's own.
        I::EmitRaw(text) => {
            vec![I::LoadConst(Value::from_safe_string((*text).to_owned())), I::Emit]
        }
        I::Lookup(_) => vec![own, filter(SEEN, 1)],
        I::StoreLocal(_) => vec![filter(KEPT, 1), own],
        // The namespace lies on top of the value that it is to hold.
        I::SetAttr(_) => vec![I::Swap, filter(KEPT, 1), I::Swap, own],
        I::Add | I::Slice | I::BuildList(None) => vec![own, filter(MADE, 1)],
        // Both operands are counted as one list, then compared.
        I::Eq | I::Ne | I::Gt | I::Gte | I::Lt | I::Lte | I::In | I::CompareAndPreserve(_) => {
            vec![I::BuildList(Some(2)), filter(SEEN, 1), I::UnpackList(2), I::Swap, own]
        }
        I::LoadConst(value) if weight(value, SMALL).is_err() => vec![own, filter(SEEN, 1)],
        I::Mul => vec![filter(TIMES, 2)],
        I::StringConcat => vec![filter(JOINED, 2)],
        // Without a guard: instructions that the formatter or our filters count, parts of counted values, numbers and
        // booleans, frames.
        #[rustfmt::skip]
        I::Emit | I::ApplyFilter(..) | I::PerformTest(..) | I::GetAttr(_) | I::GetItem
        | I::LoadConst(_) | I::BuildMap(_) | I::BuildKwargs(_) | I::MergeKwargs(_)
        | I::BuildList(Some(_)) | I::UnpackList(_) | I::UnpackLists(_) | I::Sub | I::Div
        | I::IntDiv | I::Rem | I::Pow | I::Neg | I::Not | I::PushLoop(_) | I::PushWith
        | I::Iterate(_) | I::PushDidNotIterate | I::PopFrame | I::PopLoopFrame | I::Jump(_)
        | I::JumpIfFalse(_) | I::JumpIfFalseOrPop(_) | I::JumpIfTrueOrPop(_) | I::PushAutoEscape
        | I::PopAutoEscape | I::BeginCapture(_) | I::EndCapture | I::CallFunction(..)
        | I::CallMethod(..) | I::CallObject(_) | I::DupTop | I::DiscardTop | I::FastSuper
        | I::FastRecurse | I::Swap | I::CallBlock(_) | I::LoadBlocks | I::Include(_)
        | I::ExportLocals | I::BuildMacro(..) | I::Return | I::IsUndefined | I::Enclose(_)
        | I::GetClosure => vec![own],
    }
}
