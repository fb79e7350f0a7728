//! The minimum of work on a request whose labels change, in a straight line and without a network:
//! decompress with snap, find every label (1.0) or every reference and symbol (2.0), copy
//! everything but one label, compress once with snap.
#![allow(dead_code, reason = "each benchmark uses its part")]

use std::hint::black_box;

/// Buffers that are reused for every request.
pub struct Limit {
    raw: Vec<u8>,
    copy: Vec<u8>,
    out: Vec<u8>,
    offsets: Vec<u32>,
    decoder: snap::raw::Decoder,
    encoder: snap::raw::Encoder,
}

impl Limit {
    pub fn new() -> Self {
        Self {
            raw: Vec::new(),
            copy: Vec::new(),
            out: Vec::new(),
            offsets: Vec::new(),
            decoder: snap::raw::Decoder::new(),
            encoder: snap::raw::Encoder::new(),
        }
    }

    /// Decompresses a body and finds its labels.
    pub fn read(&mut self, body: &[u8], second_version: bool) -> usize {
        let len = snap::raw::decompress_len(body).unwrap();
        if self.raw.len() < len {
            self.raw.resize(len, 0);
        }
        self.decoder.decompress(body, &mut self.raw).unwrap();
        self.offsets.clear();
        match second_version {
            false => walk_v1(&self.raw[..len], &mut self.offsets),
            true => walk_v2(&self.raw[..len], &mut self.offsets),
        }
        len
    }

    /// Copies the body without one label of each series, and compresses it.
    pub fn write(&mut self, len: usize) {
        let raw = &self.raw[..len];
        self.copy.clear();
        let mut from = 0;
        // Each pair is the part to leave out of one series: start and length.
        for cut in black_box(&self.offsets).chunks_exact(2) {
            let [start, len] = [cut[0] as usize, cut[1] as usize];
            if start < from || len >> 31 == 1 {
                continue;
            }
            self.copy.extend_from_slice(&raw[from..start]);
            from = start + len;
        }
        self.copy.extend_from_slice(&raw[from..]);
        let room = snap::raw::max_compress_len(self.copy.len());
        if self.out.len() < room {
            self.out.resize(room, 0);
        }
        black_box(self.encoder.compress(&self.copy, &mut self.out).unwrap());
    }
}

/// Number of the label that is left out of each series, counted from 1.
const CUT: usize = 4;

/// Reads a protobuf varint at a position, and advances the position.
pub fn varint(raw: &[u8], pos: &mut usize) -> usize {
    let (mut value, mut shift) = (0, 0);
    loop {
        let byte = raw[*pos];
        *pos += 1;
        value |= usize::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return value;
        }
        shift += 7;
    }
}

/// Finds every series, and name and value of every label; records the label to leave out of each
/// series.
fn walk_v1(raw: &[u8], cuts: &mut Vec<u32>) {
    let mut pos = 0;
    while pos < raw.len() {
        pos += 1;
        let len = varint(raw, &mut pos);
        let end = pos + len;
        let mut label = 0;
        while pos < end {
            let start = pos;
            let tag = raw[pos];
            pos += 1;
            let len = varint(raw, &mut pos);
            if tag != 0x0a {
                pos += len;
                continue;
            }
            for _ in 0..2 {
                pos += 1;
                let len = varint(raw, &mut pos);
                black_box((pos, len));
                pos += len;
            }
            label += 1;
            if label == CUT {
                cuts.extend_from_slice(&[start as u32, (pos - start) as u32]);
            }
        }
    }
}

/// Finds every symbol, series and reference; records the references to leave out of each series.
fn walk_v2(raw: &[u8], cuts: &mut Vec<u32>) {
    let mut symbols: Vec<(u32, u32)> = Vec::new();
    let mut pos = 0;
    while pos < raw.len() {
        let tag = raw[pos];
        pos += 1;
        let len = varint(raw, &mut pos);
        let end = pos + len;
        if tag == 0x22 {
            symbols.push((pos as u32, len as u32));
            pos = end;
            continue;
        }
        while pos < end {
            let tag = raw[pos];
            pos += 1;
            let len = varint(raw, &mut pos);
            let behind = pos + len;
            if tag != 0x0a {
                pos = behind;
                continue;
            }
            let mut label = 0;
            while pos < behind {
                let start = pos;
                let (name, value) = (varint(raw, &mut pos), varint(raw, &mut pos));
                black_box((symbols[name], symbols[value]));
                label += 1;
                if label == CUT {
                    cuts.extend_from_slice(&[start as u32, (pos - start) as u32]);
                }
            }
        }
    }
}
