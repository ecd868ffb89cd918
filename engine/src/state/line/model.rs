use loom::thread;

use super::*;
use crate::state::catalog::Pool;
use crate::sync::atomic::AtomicBool as Flag;

fn shop() -> (Arc<Desk>, Arc<Line>, Arc<Pool>) {
    let desk = Arc::new(Desk::default());
    let line = Line::new(1, desk.clone());
    let pool = Pool::new(&line, 1, 0, "main", 0);
    (desk, line, pool)
}

const WAITER: Waiter = Waiter { lsn: 5, row: 0 };

/// What a dealer does for a new order of one card; `None`: it comes again.
fn newcomer(line: &Line, pool: &Pool) -> Option<bool> {
    if line.is_first() {
        return None;
    }
    let got = pool.take_credits(1) == 1;
    if got && line.is_first() {
        pool.add_credits(1);
        return None;
    }
    Some(got)
}

/// What the desk does while it is called; how many it has served of those in `waiting`.
fn serve(desk: &Desk, line: &Line, pool: &Pool, waiting: &mut Vec<Waiter>) -> usize {
    let mut served = 0;
    while desk.next_call().is_some() {
        line.answer_call();
        let Some(grown) = line.begin_look() else {
            line.call();
            break;
        };
        waiting.extend(std::iter::from_fn(|| line.next_arrival()));
        while !waiting.is_empty() && pool.take_credits(1) == 1 {
            waiting.pop();
            served += 1;
            line.leave(1);
        }
        line.end_look(grown);
    }
    served
}

#[test]
fn nobody_overtakes_an_order_that_waits() {
    crate::sync::model("line: stock, a newcomer and the desk", Some(3), || {
        let (desk, line, pool) = shop();
        let mut waiting = Vec::new();
        assert!(line.count(1));
        line.join(WAITER);
        assert_eq!(serve(&desk, &line, &pool, &mut waiting), 0);
        let importer = {
            let pool = pool.clone();
            thread::spawn(move || pool.add_credits(1))
        };
        let comes = {
            let (line, pool) = (line.clone(), pool.clone());
            thread::spawn(move || newcomer(&line, &pool))
        };
        let mut served = serve(&desk, &line, &pool, &mut waiting);
        importer.join().unwrap();
        let got = comes.join().unwrap();
        served += serve(&desk, &line, &pool, &mut waiting);
        assert_ne!(got, Some(true), "it came later");
        assert_eq!((served, pool.available()), (1, 0));
    });
}

#[test]
fn stock_that_comes_while_an_order_joins_is_seen() {
    crate::sync::model("line: stock while an order joins", Some(3), || {
        let (desk, line, pool) = shop();
        let importer = {
            let pool = pool.clone();
            thread::spawn(move || pool.add_credits(1))
        };
        let joins = {
            let (line, pool) = (line.clone(), pool.clone());
            thread::spawn(move || match newcomer(&line, &pool) {
                Some(false) if line.count(1) => {
                    line.join(WAITER);
                    Some(false)
                }
                // The desk has to look first: it comes again.
                Some(false) => None,
                answer => answer,
            })
        };
        importer.join().unwrap();
        let got = joins.join().unwrap();
        let got = got.or_else(|| newcomer(&line, &pool)).unwrap();
        let served = serve(&desk, &line, &pool, &mut Vec::new());
        assert_eq!((usize::from(got) + served, pool.available()), (1, 0));
    });
}

#[test]
fn whoever_stays_learns_that_the_order_has_left() {
    crate::sync::model("line: an ask and the end of its order", Some(3), || {
        let (desk, line, _) = shop();
        assert!(line.count(1));
        line.join(WAITER);
        let over = Arc::new(Flag::new(false));
        let ends = {
            let (line, over) = (line.clone(), over.clone());
            thread::spawn(move || {
                // As the row of the index.
                over.store(true, Ordering::Release);
                line.leave(1);
            })
        };
        desk.stay();
        let seen = over.load(Ordering::Acquire);
        ends.join().unwrap();
        assert!(seen || desk.has_left());
    });
}

#[test]
fn stock_that_comes_for_a_preferred_order_goes_to_no_other() {
    crate::sync::model("line: a preferred order and its stock", Some(3), || {
        let (desk, line, pool) = shop();
        for _ in 0..2 {
            assert!(line.count(1));
            line.join(WAITER);
        }
        let gets = {
            let (line, pool) = (line.clone(), pool.clone());
            thread::spawn(move || {
                line.prefer(WAITER.row, WAITER.lsn);
                pool.add_credits(1);
            })
        };
        // Whether the preferred order has had its turn, how many it got, and how many the other.
        let (mut had, mut got, mut other) = (false, 0, 0);
        let mut look = || {
            while desk.next_call().is_some() {
                line.answer_call();
                let grown = line.begin_look().expect("both are in line");
                while line.next_preferred().is_some() {
                    had = true;
                    got += pool.take_credits(1);
                }
                let taken = pool.take_credits(1);
                if taken > 0 && line.has_preferred() {
                    pool.return_credits(taken);
                    line.call();
                    continue;
                }
                assert!(taken == 0 || had, "it was got for somebody else");
                other += taken;
                line.end_look(grown);
            }
        };
        look();
        gets.join().unwrap();
        look();
        assert_eq!(got + other, 1);
    });
}
