// Whether this app counts as the bundle says it must. Runs on a phone or a simulator; README.md says how.

import UIKit
import XCTest

@testable import ShelfApp

final class GoldenTests: XCTestCase {
  func testCountsAsTheBundleSays() throws {
    let folder = try XCTUnwrap(Bundle(for: GoldenTests.self).url(forResource: "golden", withExtension: nil))
    let golden = try Golden.read(folder.appendingPathComponent("golden.json"))
    let counter = try ShelfCounter(folder: XCTUnwrap(Bundle.main.url(forResource: "shelf", withExtension: nil)))
    for photo in golden.photos {
      let image = try XCTUnwrap(UIImage(contentsOfFile: folder.appendingPathComponent(photo.file).path))
      XCTAssertEqual(image.size, CGSize(width: photo.width, height: photo.height), photo.file)
      let expected = photo.detections.map { $0.product }
      let seen = try counter.count(image).products
      XCTAssertEqual(golden.missing(expected, among: seen), [], "\(photo.file), expected and not seen")
      XCTAssertEqual(golden.missing(seen, among: expected), [], "\(photo.file), seen and not expected")
    }
  }
}

/// What an app needs of golden.json.
private struct Golden: Decodable {
  let scoreThreshold: Float
  let tolerance: Tolerance
  let photos: [Photo]

  struct Tolerance: Decodable {
    let iou: CGFloat
    let score: Float
  }

  struct Photo: Decodable {
    let file: String
    let width: Int
    let height: Int
    let detections: [Expected]
  }

  struct Expected: Decodable {
    let `class`: String
    let score: Float
    let box: [CGFloat]

    var product: Product {
      Product(name: `class`, score: score, box: CGRect(x: box[0], y: box[1], width: box[2], height: box[3]))
    }
  }

  /// Those of some products that must be among others and are not.
  func missing(_ wanted: [Product], among others: [Product]) -> [Product] {
    // What scores less than this may be above the threshold here and below it there.
    let certain = scoreThreshold + tolerance.score
    return wanted.filter { product in
      product.score >= certain && !others.contains { same(product, $0) }
    }
  }

  private func same(_ a: Product, _ b: Product) -> Bool {
    a.name == b.name && abs(a.score - b.score) <= tolerance.score && overlap(a.box, b.box) >= tolerance.iou
  }
}

/// Intersection over union.
private func overlap(_ a: CGRect, _ b: CGRect) -> CGFloat {
  let both = a.intersection(b)
  let common = both.width * both.height
  return common / (a.width * a.height + b.width * b.height - common)
}
