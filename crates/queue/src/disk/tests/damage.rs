//! Files whose content differs from what was written.

use proptest::prelude::*;

use super::simulated::Simulated;
use super::*;

/// The files of a closed or crashed queue: four records of 1, 2, 4 and 8 samples in two segments,
/// of which the first record is delivered.
fn files(closed: bool) -> Vec<(String, Vec<u8>)> {
    let fs = Simulated::default();
    let mut queue = Driven::open(Arc::new(fs.clone()), options()).unwrap();
    let first = queue.append(append("a", 1, 30)).unwrap();
    queue.append(append("b", 2, 30)).unwrap();
    queue.engine.close();
    queue.append(append("a", 4, 30)).unwrap();
    queue.append(append("b", 8, 30)).unwrap();
    queue.shared.done(&first, Fate::Delivered);
    match closed {
        true => queue.engine.close(),
        false => queue.engine.flush_acks(),
    }
    fs.files()
}

fn open(files: &[(String, Vec<u8>)]) -> Result<(Driven, Simulated), OpenError> {
    let fs = Simulated::with_files(files);
    Driven::open(Arc::new(fs.clone()), options()).map(|queue| (queue, fs))
}

fn samples(queue: &Driven) -> Vec<u64> {
    let records = queue.read_all().into_iter();
    records.map(|it| it.entry.tally().samples).collect()
}

/// Checks a damaged queue: records that are read are intact, the others are reported and booked,
/// opening it again finds the same, and it still works.
///
/// `unwritten`: the damage may look as if the missing part had never been written.
fn check(files: &[(String, Vec<u8>)], closed: bool, what: &str, unwritten: bool) {
    let (mut queue, fs) = match open(files) {
        Ok(opened) => opened,
        Err(error) => panic!("{what}: {error}"),
    };
    let read = samples(&queue);
    queue.check_balance();
    assert!(
        read.is_sorted() && read.iter().all(|it| [1, 2, 4, 8].contains(it)),
        "{what}"
    );
    let total = queue.snapshot().total;
    let lost = total.dropped.get(&Reason::Corrupt).copied();
    let lost = lost.unwrap_or_default();
    if read != [2, 4, 8] && !unwritten {
        assert!(!queue.events().is_empty(), "{what}: {read:?} in silence");
    }
    if closed && !what.starts_with("checkpoint") && !what.contains(".ack") {
        // The seals tell how many records there were.
        assert_eq!(total.received.batches, 4, "{what}\n{}", queue.events());
        assert_eq!(total.received.samples, 15, "{what}\n{}", queue.events());
        let queued: u64 = read.iter().sum();
        assert_eq!(
            lost.samples + queued + total.delivered.samples,
            15,
            "{what}"
        );
    }
    queue.append(append("c", 16, 10)).unwrap();
    let mut expected = read;
    expected.push(16);
    assert_eq!(samples(&queue), expected, "{what}");
    let again = fs.reboot(super::simulated::Crash::Process);
    let again = Driven::open(Arc::new(again), options()).unwrap();
    assert_eq!(samples(&again), expected, "{what}");
    again.check_balance();
}

#[test]
fn every_byte_of_every_file_may_be_flipped() {
    for closed in [false, true] {
        let files = files(closed);
        for (place, (name, bytes)) in files.iter().enumerate() {
            for at in 0..bytes.len() {
                let mut damaged = files.clone();
                damaged[place].1[at] ^= 1 << (at % 8);
                check(
                    &damaged,
                    closed,
                    &format!("{name} flipped at {at}, closed: {closed}"),
                    false,
                );
            }
        }
    }
}

#[test]
fn every_file_may_end_anywhere_or_be_missing() {
    for closed in [false, true] {
        let files = files(closed);
        for (place, (name, bytes)) in files.iter().enumerate() {
            for length in 0..bytes.len() {
                let mut damaged = files.clone();
                damaged[place].1.truncate(length);
                let part = match name.ends_with(".ack") {
                    true => format::ACK,
                    false => 64 + 1 + 30,
                };
                let whole = length >= 32 && (length - 32) % part == 0;
                let unwritten = whole && (!closed || name.ends_with(".ack"));
                let what = format!("{name} cut at {length}, closed: {closed}");
                check(&damaged, closed, &what, unwritten);
            }
            let mut damaged = files.clone();
            damaged.remove(place);
            check(
                &damaged,
                closed,
                &format!("{name} missing, closed: {closed}"),
                false,
            );
        }
    }
}

#[test]
fn zeros_and_garbage_may_follow_or_stand_in_the_middle() {
    let files = files(false);
    for (place, (name, bytes)) in files.iter().enumerate() {
        for filler in [0u8, 0xff, b'M'] {
            let mut longer = files.clone();
            longer[place].1.extend(vec![filler; 5000]);
            check(
                &longer,
                false,
                &format!("{name} followed by {filler}"),
                false,
            );
            for at in (0..bytes.len()).step_by(7) {
                let mut damaged = files.clone();
                let end = bytes.len().min(at + 50);
                damaged[place].1[at..end].fill(filler);
                check(
                    &damaged,
                    false,
                    &format!("{name} filled with {filler} at {at}"),
                    false,
                );
            }
        }
    }
}

#[test]
fn a_record_inside_of_a_body_is_not_taken_for_one() {
    // A body full of forged records, by an author who does not know the queue's id.
    let mut forged = Vec::new();
    for sequence in 0..8 {
        let record = append("evil", 1000, 5);
        format::put_head(&mut forged, format::Seed::new(1), sequence, &record, 0);
        forged.extend_from_slice(&record.body);
    }
    let fs = Simulated::default();
    let mut queue = Driven::open(Arc::new(fs.clone()), options()).unwrap();
    let mut evil = append("a", 1, 0);
    evil.body = forged.into();
    queue.append(evil).unwrap();
    queue.append(append("a", 2, 10)).unwrap();
    queue.engine.close();
    let mut files = fs.files();
    let (_, log) = files
        .iter_mut()
        .find(|(name, _)| name.ends_with(".log"))
        .unwrap();
    log[40] ^= 1;
    let (queue, _) = open(&files).unwrap();
    assert_eq!(samples(&queue), [2]);
    assert_eq!(queue.snapshot().total.dropped[&Reason::Corrupt].samples, 1);
}

#[test]
fn damage_that_happens_while_it_is_open_is_met_by_the_reader() {
    // In the body of the first record, and in its header.
    for at in [32 + 64 + 1 + 5, 32 + 20] {
        let fs = Simulated::default();
        let mut queue = Driven::open(Arc::new(fs.clone()), options()).unwrap();
        queue.append_all(vec![append("a", 1, 30), append("b", 2, 30)]);
        let name = "00000000000000000000.log";
        let file = fs::Fs::open(&fs, name, fs::Mode::Existing).unwrap();
        file.write_at(&[0xaa], at).unwrap();
        assert_eq!(samples(&queue), [2]);
        assert!(queue.events().contains("damaged") && queue.events().contains("lost 1 batches"));
        let record = queue.read_all().remove(0);
        queue.shared.done(&record.entry, Fate::Delivered);
        let snapshot = queue.snapshot();
        let a = snapshot.tenants.iter().find(|(name, _)| &**name == "a");
        assert_eq!(a.unwrap().1.dropped[&Reason::Corrupt].samples, 1);
        assert_eq!(snapshot.total.queued(), Tally::default());
    }
}

#[test]
fn files_of_other_queues_and_other_versions_are_refused_and_strays_left_alone() {
    let files = files(true);
    let log = files.iter().position(|(name, _)| name.ends_with(".log"));
    let log = log.unwrap();
    let mut foreign = files.clone();
    let header = format::FileHeader { id: 1, first: 0 };
    foreign[log].1[..32].copy_from_slice(&header.encode(format::Kind::Segment));
    assert!(matches!(open(&foreign), Err(OpenError::Foreign { .. })));

    let mut newer = files.clone();
    newer[log].1[4] = 3;
    let crc = crc32c::crc32c(&newer[log].1[..28]);
    newer[log].1[28..32].copy_from_slice(&crc.to_le_bytes());
    assert!(matches!(
        open(&newer),
        Err(OpenError::Version { version: 3, .. })
    ));

    let mut stray = files;
    stray.push(("notes.txt".into(), b"mine".into()));
    let (queue, fs) = open(&stray).unwrap();
    assert!(queue.events().contains("notes.txt"));
    assert!(fs.files().contains(&("notes.txt".into(), b"mine".into())));
    assert_eq!(samples(&queue), [2, 4, 8]);
}

#[derive(Clone, Debug)]
enum Harm {
    Flip,
    Cut,
    Fill(u8),
    /// Bytes from elsewhere in the same file.
    Copy(u16),
    Insert(u8),
    Remove,
}

fn harm() -> impl Strategy<Value = (u8, u16, Harm)> {
    let harm = prop_oneof![
        Just(Harm::Flip),
        Just(Harm::Cut),
        any::<u8>().prop_map(Harm::Fill),
        any::<u16>().prop_map(Harm::Copy),
        any::<u8>().prop_map(Harm::Insert),
        Just(Harm::Remove),
    ];
    (any::<u8>(), any::<u16>(), harm)
}

fn inflict(files: &mut Vec<(String, Vec<u8>)>, (file, at, harm): (u8, u16, Harm)) {
    if files.is_empty() {
        return;
    }
    let file = usize::from(file) % files.len();
    let bytes = &mut files[file].1;
    let at = usize::from(at) % (bytes.len() + 1);
    let end = bytes.len().min(at + 40);
    match harm {
        Harm::Flip if at < bytes.len() => bytes[at] ^= 1 << (at % 8),
        Harm::Flip | Harm::Cut => bytes.truncate(at),
        Harm::Fill(filler) => bytes[at..end].fill(filler),
        Harm::Copy(from) => {
            let from = usize::from(from) % (bytes.len() + 1);
            let copied = bytes[from..bytes.len().min(from + 130)].to_vec();
            bytes.splice(at..at, copied);
        }
        Harm::Insert(filler) => drop(bytes.splice(at..at, vec![filler; 40])),
        Harm::Remove => drop(files.remove(file)),
    }
}

proptest! {
    #[test]
    fn any_amount_of_damage_is_survived(
        harms in prop::collection::vec(harm(), 1..8),
        closed in any::<bool>(),
    ) {
        let mut files = files(closed);
        let what = format!("{harms:?}");
        for harm in harms {
            inflict(&mut files, harm);
        }
        // The damaged files may look by chance like unwritten ones.
        check(&files, false, &what, true);
    }
}
