// Counts the products on a shelf photo with a shelfcount bundle. Add this file to an app; README.md says the rest.

import MediaPipeTasksVision
import UIKit

/// One product; its box is in pixels of the upright photo.
struct Product: Equatable {
  let name: String
  let score: Float
  let box: CGRect
}

/// What a photo shows.
struct Counts {
  let products: [Product]

  /// Products of each class that is there.
  var perClass: [String: Int] {
    Dictionary(grouping: products) { $0.name }.mapValues { $0.count }
  }
}

/// A bundle, ready to count.
final class ShelfCounter {
  private let detector: ObjectDetector

  /// The bundle that lies in a folder, of the app or downloaded.
  init(folder: URL) throws {
    let model = try ModelFile.read(folder.appendingPathComponent("model.json"))
    guard model.format == ModelFile.known else {
      throw BundleError(errorDescription: "model.json must have format \(ModelFile.known), got \(model.format)")
    }
    let options = ObjectDetectorOptions()
    options.baseOptions.modelAssetPath = folder.appendingPathComponent("model.tflite").path
    options.scoreThreshold = model.spec.scoreThreshold
    options.maxResults = model.spec.maxDetections
    detector = try ObjectDetector(options: options)
  }

  /// Counts a photo; its EXIF orientation is seen to here. Takes its time: not for the main thread.
  func count(_ photo: UIImage) throws -> Counts {
    let result = try detector.detect(image: MPImage(uiImage: upright(photo)))
    return Counts(products: result.detections.map(product))
  }
}

/// What an app needs of model.json.
private struct ModelFile: Decodable {
  // A bundle of another format needs another version of this file.
  static let known = 1

  let format: Int
  let spec: Spec

  struct Spec: Decodable {
    let scoreThreshold: Float
    let maxDetections: Int
  }
}

struct BundleError: LocalizedError {
  let errorDescription: String?
}

extension Decodable {
  /// A JSON file whose keys are in snake case, as shelfcount writes them.
  static func read(_ file: URL) throws -> Self {
    let decoder = JSONDecoder()
    decoder.keyDecodingStrategy = .convertFromSnakeCase
    return try decoder.decode(Self.self, from: Data(contentsOf: file))
  }
}

/// The photo with its pixels turned; MediaPipe would turn it too, but give boxes on the photo as it was before.
private func upright(_ photo: UIImage) -> UIImage {
  if photo.imageOrientation == .up { return photo }
  let format = UIGraphicsImageRendererFormat()
  format.scale = photo.scale
  return UIGraphicsImageRenderer(size: photo.size, format: format).image { _ in photo.draw(at: .zero) }
}

private func product(_ detection: Detection) -> Product {
  let category = detection.categories[0]
  let box = detection.boundingBox
  // MediaPipe cuts x, y, width and height down to whole pixels; on average each lost half of one.
  let whole = CGRect(x: box.minX + 0.5, y: box.minY + 0.5, width: box.width + 0.5, height: box.height + 0.5)
  // The name is there: the model's metadata brings the labels.
  return Product(name: category.categoryName ?? "", score: category.score, box: whole)
}
