//! The shop's own small catalogue: eight kinds of things, eight of each, with drawn pictures.

use serde::Serialize;

/// What is sold.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Product {
    pub(crate) id: usize,
    pub(crate) name: String,
    pub(crate) kind: &'static str,
    /// In cents.
    pub(crate) price: u64,
    pub(crate) text: String,
}

struct Kind {
    name: &'static str,
    price: u64,
    text: &'static str,
    /// The picture, with `A`, `B` and `C` for its colours.
    drawing: &'static str,
}

const STYLES: [(&str, [&str; 3]); 8] = [
    ("Amber", ["#f59e0b", "#b45309", "#fef3c7"]),
    ("Coral", ["#fb7185", "#be123c", "#ffe4e6"]),
    ("Fern", ["#4ade80", "#15803d", "#dcfce7"]),
    ("Lagoon", ["#22d3ee", "#0e7490", "#cffafe"]),
    ("Midnight", ["#6366f1", "#312e81", "#e0e7ff"]),
    ("Plum", ["#c084fc", "#7e22ce", "#f3e8ff"]),
    ("Slate", ["#94a3b8", "#334155", "#f1f5f9"]),
    ("Sand", ["#d6b98c", "#78592b", "#faf3e3"]),
];

const KINDS: [Kind; 8] = [
    Kind {
        name: "mug",
        price: 1290,
        text: "Holds a third of a litre, and the heat for a while.",
        drawing: "<path d='M138 80h22a24 24 0 0 1 0 56h-22v-14h20a11 11 0 0 0 0-28h-20z' fill='B'/>\
            <rect x='52' y='64' width='88' height='96' rx='14' fill='A'/><rect x='52' y='92' width='88' height='14' fill='B'/>\
            <path d='M78 52q-8-10 0-20m22 20q-8-10 0-20m22 20q-8-10 0-20' stroke='B' stroke-width='5' fill='none' \
            stroke-linecap='round' opacity='.5'/>",
    },
    Kind {
        name: "lamp",
        price: 5900,
        text: "Warm light on a long arm; stands by itself.",
        drawing: "<path d='M60 172h80v-12H60z' fill='B'/><path d='M96 164l-18-62 50-34' stroke='B' stroke-width='8' fill='none' \
            stroke-linejoin='round'/><path d='M112 50l46 24-10 26-60-30z' fill='A'/><circle cx='128' cy='98' r='11' fill='#fde047'/>\
            <path d='M118 112l-20 40h76l-32-48z' fill='#fde047' opacity='.35'/>",
    },
    Kind {
        name: "plant",
        price: 2450,
        text: "Needs water once a week, and asks for nothing else.",
        drawing: "<path d='M70 128h60l-8 46H78z' fill='A'/><rect x='64' y='118' width='72' height='16' rx='5' fill='B'/>\
            <path d='M100 118C98 84 62 86 58 54c34 0 42 26 42 50 2-34 12-60 46-64 0 40-32 44-44 78z' fill='#22a06b'/>\
            <path d='M100 118c0-30-4-52-18-70' stroke='#14532d' stroke-width='3' fill='none'/>",
    },
    Kind {
        name: "notebook",
        price: 990,
        text: "192 pages that no cache has ever seen.",
        drawing: "<rect x='56' y='40' width='96' height='124' rx='8' fill='B'/><rect x='62' y='40' width='90' height='118' rx='6' \
            fill='A'/><rect x='82' y='66' width='52' height='26' rx='4' fill='C'/><path d='M70 40v118' stroke='B' stroke-width='5'/>\
            <path d='M136 40v60l-8-8-8 8V40z' fill='B'/>",
    },
    Kind {
        name: "chair",
        price: 12900,
        text: "Four legs, all of the same length.",
        drawing: "<path d='M66 40h12v130H66zM124 100h12v70h-12z' fill='B'/><rect x='66' y='98' width='72' height='16' rx='6' \
            fill='A'/><rect x='64' y='44' width='16' height='48' rx='8' fill='A'/><path d='M78 136h48' stroke='B' stroke-width='6'/>",
    },
    Kind {
        name: "backpack",
        price: 7900,
        text: "Twenty litres, two straps, one secret pocket.",
        drawing: "<path d='M80 52a20 20 0 0 1 40 0' stroke='B' stroke-width='8' fill='none'/><rect x='56' y='52' width='88' \
            height='116' rx='26' fill='A'/><rect x='68' y='108' width='64' height='48' rx='10' fill='B'/><path d='M68 126h64' \
            stroke='C' stroke-width='4'/><rect x='92' y='120' width='16' height='12' rx='3' fill='C'/><path d='M70 80h60' \
            stroke='B' stroke-width='5'/>",
    },
    Kind {
        name: "headphones",
        price: 8900,
        text: "Quiet in the office, loud on the way home.",
        drawing: "<path d='M48 120a52 52 0 0 1 104 0' stroke='B' stroke-width='12' fill='none'/><rect x='36' y='108' width='30' \
            height='52' rx='14' fill='A'/><rect x='134' y='108' width='30' height='52' rx='14' fill='A'/><rect x='58' y='112' \
            width='10' height='44' rx='5' fill='B'/><rect x='132' y='112' width='10' height='44' rx='5' fill='B'/>",
    },
    Kind {
        name: "teapot",
        price: 3450,
        text: "Always answers 418, and pours without a drip.",
        drawing: "<path d='M132 110c26 0 14-30 38-34l4 10c-16 6-8 40-40 46z' fill='B'/><path d='M64 100c-34-4-34 44 4 42' \
            stroke='B' stroke-width='9' fill='none'/><ellipse cx='100' cy='120' rx='46' ry='40' fill='A'/><rect x='72' y='80' \
            width='56' height='10' rx='5' fill='B'/><circle cx='100' cy='72' r='9' fill='B'/><path d='M62 128a40 34 0 0 0 76 0z' \
            fill='B' opacity='.35'/>",
    },
];

/// How many there are; their ids begin with 1.
pub(crate) const COUNT: usize = KINDS.len() * STYLES.len();

pub(crate) fn all() -> impl Iterator<Item = Product> {
    (1..=COUNT).filter_map(product)
}

pub(crate) fn product(id: usize) -> Option<Product> {
    let (style, kind) = of(id)?;
    Some(Product {
        id,
        name: format!("{} {}", STYLES[style].0, kind.name),
        kind: kind.name,
        price: kind.price + 100 * style as u64,
        text: kind.text.to_owned(),
    })
}

/// The picture as SVG.
pub(crate) fn picture(id: usize) -> Option<String> {
    let (style, kind) = of(id)?;
    let [a, b, c] = STYLES[style].1;
    let mut drawing = kind.drawing.to_owned();
    for (letter, colour) in [("'A'", a), ("'B'", b), ("'C'", c)] {
        drawing = drawing.replace(letter, &format!("'{colour}'"));
    }
    Some(format!(
        "<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 200 200'><rect width='200' height='200' fill='{c}'/>\
         <ellipse cx='100' cy='174' rx='64' ry='8' fill='{b}' opacity='.18'/>{drawing}</svg>"
    ))
}

/// Neighbours in the grid are of different kinds.
fn of(id: usize) -> Option<(usize, &'static Kind)> {
    let at = id.checked_sub(1).filter(|at| *at < COUNT)?;
    let (row, column) = (at / KINDS.len(), at % KINDS.len());
    Some(((row + column) % STYLES.len(), &KINDS[column]))
}
