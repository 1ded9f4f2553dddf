//! Tests of the threads inside stages: order, errors, panics, how many there are, and giving way.

use std::sync::atomic::AtomicBool;
use std::sync::{Barrier, mpsc};
use std::thread::{ThreadId, current};

use tch::{Kind, Tensor};

use super::*;
use crate::error::invalid;

fn threads(count: usize) -> Threads {
    Threads::new(NonZeroUsize::new(count).unwrap())
}

/// Two times each number, in the order of joining, and what the call returned.
fn doubled(
    threads: &Threads,
    count: usize,
    compute: impl Fn(usize) -> Result<()> + Sync,
) -> (Vec<usize>, Result<()>) {
    let mut joined = vec![];
    let done = threads.in_order(
        count,
        || (),
        |(), part| compute(part).map(|()| 2 * part),
        |part, double| {
            assert_eq!(double, 2 * part);
            joined.push(part);
            Ok(())
        },
    );
    assert_eq!(threads.busy(), 0, "no thread is left");
    (joined, done)
}

#[test]
fn parts_are_computed_side_by_side_and_joined_in_order() {
    for count in 1..5 {
        // The first parts wait for each other: fewer threads than these would wait for ever.
        let (meeting, parts) = (Barrier::new(count), 4 * count);
        let meet = |part| {
            if part < count {
                meeting.wait();
            }
            Ok(())
        };
        let (joined, done) = doubled(&threads(count), parts, meet);
        assert!(done.is_ok() && joined.into_iter().eq(0..parts), "{count} threads");
    }
    assert!(doubled(&threads(3), 0, |_| Ok(())).0.is_empty());
}

#[test]
fn a_result_waits_for_those_before_it() {
    let (tell, told) = mpsc::channel();
    let (tell, told) = (Mutex::new(tell), Mutex::new(told));
    // The first part ends after the second one.
    let (joined, done) = doubled(&threads(2), 2, |part| {
        match part {
            0 => told.lock().unwrap().recv().unwrap(),
            _ => tell.lock().unwrap().send(()).unwrap(),
        }
        Ok(())
    });
    assert!(done.is_ok() && joined == [0, 1]);
}

/// The sum of rounded terms depends on their order, and here on nothing else.
#[test]
fn sums_are_the_same_for_any_number_of_threads() {
    let sum = |count| {
        let matrix = Tensor::arange(1000, (Kind::Float, tch::Device::Cpu)).sin().view([40, 25]);
        let mut sum = Tensor::zeros([40, 40], (Kind::Float, tch::Device::Cpu));
        let product = |own: &mut Tensor, part: usize| {
            let scaled = &*own * (1.0 / (part + 1) as f64);
            Ok(scaled.matmul(&own.tr()))
        };
        let join = |_, part: Tensor| {
            sum += part;
            Ok(())
        };
        threads(count).in_order(33, || matrix.shallow_clone(), product, join).unwrap();
        crate::tensors::numbers::<f32>(&sum).unwrap()
    };
    let one = sum(1);
    assert!(one.iter().any(|x| *x != 0.0) && (2..6).all(|count| sum(count) == one));
}

#[test]
fn the_error_of_the_lowest_number_is_returned() {
    for count in 1..5 {
        let started = AtomicUsize::new(0);
        let (joined, done) = doubled(&threads(count), 1000, |part| {
            started.fetch_max(part, Ordering::Relaxed);
            if part < 7 { Ok(()) } else { Err(invalid(format!("part {part}"))) }
        });
        assert_eq!(done.unwrap_err().to_string(), "part 7", "{count} threads");
        assert!(joined.into_iter().eq(0..7), "what is before the error is joined");
        assert!(started.into_inner() < 7 + 2 * count, "the rest is not computed");
    }
    // Also where a later part failed before it.
    let meeting = Barrier::new(2);
    let failed = AtomicBool::new(false);
    let (joined, done) = doubled(&threads(2), 2, |part| {
        meeting.wait();
        while part == 0 && !failed.load(Ordering::Relaxed) {
            thread::yield_now();
        }
        failed.store(true, Ordering::Relaxed);
        Err(invalid(format!("part {part}")))
    });
    assert!(joined.is_empty() && done.unwrap_err().to_string() == "part 0");
}

#[test]
fn an_error_of_joining_ends_the_call() {
    for count in 1..5 {
        let threads = threads(count);
        let join = |part, ()| if part < 3 { Ok(()) } else { Err(invalid("full")) };
        let done = threads.in_order(1000, || (), |(), _| Ok(()), join);
        assert_eq!((done.unwrap_err().to_string(), threads.busy()), ("full".to_owned(), 0));
    }
}

/// What a thread has for itself, counted.
struct Own<'a>(&'a AtomicUsize);

impl Drop for Own<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[test]
fn a_panic_beside_is_resumed_on_the_calling_thread_and_leaves_no_thread() {
    let (threads, here) = (threads(3), current().id());
    let (alive, meeting) = (AtomicUsize::new(0), Barrier::new(3));
    let own = || {
        alive.fetch_add(1, Ordering::Relaxed);
        Own(&alive)
    };
    let compute = |_: &mut Own<'_>, part: usize| -> Result<()> {
        meeting.wait();
        assert!(part != 1, "part {part} broke off");
        Ok(())
    };
    let mut joined = vec![];
    let call = || {
        let join = |part, ()| {
            assert_eq!(current().id(), here);
            joined.push(part);
            Ok(())
        };
        threads.in_order(3, own, compute, join)
    };
    let panic = catch_unwind(AssertUnwindSafe(call)).unwrap_err();
    assert_eq!(panic.downcast_ref::<String>().unwrap(), "part 1 broke off");
    assert_eq!((joined, alive.into_inner(), threads.busy()), (vec![0], 0, 0));
}

#[test]
fn few_results_wait_to_be_joined() {
    let (meeting, first_ended) = (Barrier::new(2), AtomicBool::new(false));
    // While the first part is held up, the other thread computes three more.
    let (joined, done) = doubled(&threads(2), 50, |part| {
        if part == 0 || part == 3 {
            meeting.wait();
        }
        assert!(part < 4 || first_ended.load(Ordering::Relaxed), "part {part} started too early");
        if part == 0 {
            first_ended.store(true, Ordering::Relaxed);
        }
        Ok(())
    });
    assert!(done.is_ok() && joined.len() == 50);
}

/// A stage that begins gets a thread of another one, which takes it again when that stage has ended.
#[test]
fn threads_give_way_to_a_stage_that_begins() {
    let (threads, here) = (threads(2), current().id());
    let (began, ended) = (1, 500);
    let _stage = threads.begin();
    let mut other = None;
    let mut at: Vec<ThreadId> = vec![];
    let helped = [AtomicBool::new(false), AtomicBool::new(false)];
    let compute = |(): &mut (), part: usize| {
        // A second thread has to come at the start, and after the other stage.
        let wanted = if part > ended { Some(&helped[1]) } else { helped.first() };
        let wanted = wanted.filter(|_| part <= began || part > ended);
        if let Some(helped) = wanted {
            helped.fetch_or(current().id() != here, Ordering::Relaxed);
            while !helped.load(Ordering::Relaxed) {
                thread::yield_now();
            }
        }
        Ok(current().id())
    };
    let join = |part: usize, thread| {
        at.push(thread);
        if part == began {
            other = Some(threads.begin());
        } else if part == ended {
            other = None;
        }
        Ok(())
    };
    threads.in_order(ended + 9, || (), compute, join).unwrap();
    let beside = at[began + 1..=ended].iter().filter(|thread| **thread != here).count();
    // Those that were waiting to be joined when the other stage began, and one more.
    assert!(beside <= 5, "{beside} parts did not give way");
    assert_eq!(threads.busy(), 1);
}
